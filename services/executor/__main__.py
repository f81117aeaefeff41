"""`python -m services.executor`: one executor in this process."""

import sys

from services.executor.service import build
from services.runtime.app import run_service
from services.runtime.config import Config
from services.runtime.environment import begin_without_others

begin_without_others("executor")
sys.exit(run_service("executor", build, config=Config.load()))
