-- Chooses who works on a task, and with which model.
-- In: context.task. Out: { agents, orchestration }. The first agent is the primary one; it leads.
local task = context.task
local complexity = task.estimated_complexity or 5.0
local description = string.lower(task.description or task.title or "")

local function model_by_complexity()
  if complexity >= 8.0 then
    return "claude-sonnet-4.5"
  elseif complexity >= 5.0 then
    return "gemini-2.5-pro"
  end
  return "gemini-1.5-flash"
end

local role, model
if task.sparc_phase == "specification" then
  role = "project_manager"
  model = "claude-sonnet-4.5" -- best reasoning
elseif task.sparc_phase == "architecture" then
  role = "architecture_analyst"
  model = "claude-sonnet-4.5" -- best architecture
elseif task.sparc_phase == "refinement" then
  role = "code_developer"
  model = complexity > 7.0 and "gemini-2.5-pro" or "gemini-1.5-flash"
else
  role = "code_developer"
  model = model_by_complexity()
end

local agents = { { role = role, model = model, primary = true } }

if complexity > 8.0 then
  table.insert(agents, { role = "quality_engineer", model = "claude-sonnet-4.5", priority = "high" })
end

if string.match(description, "auth") or string.match(description, "security") then
  table.insert(agents, { role = "security_analyst", model = "claude-sonnet-4.5" })
end

return {
  agents = agents,
  orchestration = { pattern = #agents == 1 and "solo" or "leader_follower" },
}
