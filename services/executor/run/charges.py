"""On whose account the calls of a task go, and which budgets hold them. Pure."""

from contracts.ledger import Budget, Charge
from services.executor.run.state import Run, TaskRecord


def charge_of(run: Run, task: TaskRecord) -> Charge:
    """The charge of one call; the budget of the epic is not the run's to know, it may have changed since."""
    spec, options = task.spec, run.options
    budgets = []
    if spec.budget_usd_micros is not None or spec.budget_tokens is not None:
        budgets.append(Budget("task", f"{run.run_id}/{spec.id}", spec.budget_usd_micros, spec.budget_tokens))
    if options.budget_usd_micros is not None or options.budget_tokens is not None:
        budgets.append(Budget("run", run.run_id, options.budget_usd_micros, options.budget_tokens))
    return Charge(spec.id, run.epic_id or "", budgets)
