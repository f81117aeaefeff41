"""The tools: each carries out the plan of a permitted call and nothing else. A plan is never parsed again."""
