-- Splits a task into SPARC phases that run one after the other.
-- In: context.task. Out: { subtasks, strategy, reasoning }. The ids are local to this answer; the planner puts the
-- parent's id before them.
local task = context.task
local complexity = task.estimated_complexity or 5.0
local description = task.description or task.title or ""

if complexity < 5.0 then
  return {
    subtasks = {},
    strategy = "atomic",
    reasoning = "Task is simple enough to execute atomically",
  }
end

-- Per cent of the whole, so that 6 gives 1.2 and not 1.2000000000000002.
local function share(percent)
  return complexity * percent / 100
end

local subtasks = {
  {
    id = "spec",
    description = "Design and specify: " .. description,
    task_type = "milestone",
    estimated_complexity = share(20),
    sparc_phase = "specification",
    dependencies = {},
  },
  {
    id = "arch",
    description = "Architecture for: " .. description,
    task_type = "milestone",
    estimated_complexity = share(25),
    sparc_phase = "architecture",
    dependencies = { "spec" },
  },
  {
    id = "impl",
    description = "Implement: " .. description,
    task_type = "implementation",
    estimated_complexity = share(40),
    sparc_phase = "refinement",
    dependencies = { "arch" },
  },
}

if complexity > 8.0 then
  table.insert(subtasks, {
    id = "test",
    description = "Test: " .. description,
    task_type = "milestone",
    estimated_complexity = share(15),
    sparc_phase = "completion_phase",
    dependencies = { "impl" },
  })
end

return {
  subtasks = subtasks,
  strategy = "sequential_with_checkpoints",
  reasoning = string.format("Complex task (%.1f) decomposed into %d SPARC phases", complexity, #subtasks),
}
