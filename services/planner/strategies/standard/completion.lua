-- The quality gate: is the task done, or does it need another round?
-- In: context.execution_results (list of { id, status }), context.tests, context.code_quality.
-- Out: { status, confidence, reasoning, required_fixes }.
local results = context.execution_results or {}
local tests = context.tests or {}
local quality = context.code_quality or {}

local incomplete = 0
for _, result in ipairs(results) do
  if result.status ~= "completed" then
    incomplete = incomplete + 1
  end
end

local test_failures = 0
if tests.unit_tests then
  test_failures = test_failures + (tests.unit_tests.failed or 0)
end
if tests.integration_tests then
  test_failures = test_failures + (tests.integration_tests.failed or 0)
end

local quality_issues = {}
if quality.coverage and quality.coverage < 0.80 then
  table.insert(quality_issues, "Coverage below 80%")
end
if quality.complexity and quality.complexity > 10 then
  table.insert(quality_issues, "Complexity too high")
end

if incomplete == 0 and test_failures == 0 and #quality_issues == 0 then
  return {
    status = "completed",
    confidence = 0.95,
    reasoning = "All subtasks completed, tests passed, quality gates met",
  }
end

local issues = {}
if incomplete > 0 then
  table.insert(issues, string.format("%d subtasks incomplete", incomplete))
end
if test_failures > 0 then
  table.insert(issues, string.format("%d test failures", test_failures))
end
if #quality_issues > 0 then
  table.insert(issues, table.concat(quality_issues, ", "))
end

return {
  status = "needs_rework",
  confidence = 0.6,
  reasoning = table.concat(issues, "; "),
  required_fixes = issues,
}
