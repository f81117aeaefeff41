"""The ledger is one, so workers that were told different limits are shown to whoever asks for them."""

import structlog

from contracts.ledger import ModelLimits, WorkerLimits
from contracts.requests import Nothing
from services.llm_worker.config import Config, ModelConfig
from services.llm_worker.ledger.limits import LimitsConfig
from services.llm_worker.ledger.opening import CODEC
from services.llm_worker.ledger.views import LedgerVerbs
from services.llm_worker.models import ModelTable
from services.llm_worker.prices import Prices
from services.llm_worker.resolving import Resolver
from services.runtime.bus import Bus
from services.runtime.clock import SystemClock
from services.runtime.ids import CountingIds
from services.runtime.rpc import Caller
from tests.unit.llm_worker.crew import Crew

HIGH, LOW = LimitsConfig(usd_per_day=100), LimitsConfig(usd_per_day=0.6)
ONE_MODEL = {"narrow": ModelConfig(provider="mock", concurrent=2)}
ANYBODY = Caller("anybody", "", "", "", {})


async def worker(bus: Bus, worker_id: str, config: Config) -> LedgerVerbs:
    models = ModelTable(config, {})
    verbs = LedgerVerbs(
        bus=bus,
        cashier=Crew(bus, config, worker_id).cashier,
        codec=CODEC,
        models=models,
        resolver=Resolver(models),
        prices=Prices(),
        clock=SystemClock(),
        ids=CountingIds(),
        allow_unpriced=False,
        log=structlog.get_logger(),
    )
    await verbs.start()
    return verbs


async def test_workers_with_the_same_limits_agree(bus):
    config = Config(limits=HIGH, models=ONE_MODEL)
    first, _ = await worker(bus, "w1", config), await worker(bus, "w2", config)
    assert (await first.limits(Nothing(), ANYBODY)).disagreeing == []


async def test_each_says_who_goes_by_others(bus):
    first = await worker(bus, "w1", Config(limits=HIGH))
    second = await worker(bus, "w2", Config(limits=LOW))
    of_second = ModelLimits("", 600_000, 0, 0, 60, 0, 10)
    assert (await first.limits(Nothing(), ANYBODY)).disagreeing == [WorkerLimits("w2", [of_second])]
    assert [one.worker_id for one in (await second.limits(Nothing(), ANYBODY)).disagreeing] == ["w1"]


async def test_limits_of_one_model_count_too(bus):
    first = await worker(bus, "w1", Config(limits=HIGH))
    await worker(bus, "w2", Config(limits=HIGH, models=ONE_MODEL))
    (other,) = (await first.limits(Nothing(), ANYBODY)).disagreeing
    assert other.limits[1] == ModelLimits("narrow", concurrent=2)
