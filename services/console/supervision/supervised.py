"""The copies that supervisord runs, as the keeper of their number sees them."""

from services.console.home import Home
from services.console.serve import SERVICES
from services.console.supervision.background import RUNS, Supervisor
from services.console.supervision.scale import service_of


class SupervisedCopies:
    """Starts and stops programs of the shipped supervisord.conf."""

    def __init__(self, home: Home) -> None:
        self._supervisor = Supervisor(home)

    async def running(self) -> dict[str, int]:
        """See Copies.running."""
        infos = await self._supervisor.processes()
        return {
            name: int(info["pid"])
            for name, info in infos.items()
            if service_of(name) in SERVICES and info["statename"] in RUNS
        }

    async def add(self, name: str) -> None:
        """See Copies.add."""
        await self._supervisor.start(name)

    async def stop(self, name: str) -> None:
        """See Copies.stop."""
        await self._supervisor.stop(name)
