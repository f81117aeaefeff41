-- Says who does what, and after whom.
-- In: context.agents (as spawned, the leader first), context.task. Out: { pattern, steps }. In a step, `agent` and
-- the numbers in `after` count the agents from 1; a step sees the results of those it comes after.
local agents = context.agents or {}
local task = context.task or {}
local description = task.description or task.title or "the task"

if #agents == 0 then
  error("there is no agent to orchestrate", 0)
end

local views = {
  project_manager = "Check that the result meets the goal and leaves no requirement open.",
  architecture_analyst = "Check the structure: boundaries, interfaces, and what will be hard to change later.",
  code_developer = "Check that the result can be built as it stands, and name what is missing.",
  quality_engineer = "Check correctness and tests: name cases that are not covered and acceptance criteria not met.",
  security_analyst = "Check security: name threats, unsafe defaults, and secrets or input handled without care.",
}

local steps = { { agent = 1, after = {}, instruction = "Complete the task: " .. description } }

for index = 2, #agents do
  local role = agents[index].role or "reviewer"
  table.insert(steps, {
    agent = index,
    after = { 1 },
    instruction = "Review the leader's result as " .. (string.gsub(role, "_", " ")) .. ". "
      .. (views[role] or "Check the result from the view of your role, and name what has to be mended."),
  })
end

return {
  pattern = #agents == 1 and "solo" or "leader_follower",
  steps = steps,
}
