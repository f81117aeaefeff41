"""`python -m services.planner`: the planner with the configuration of this environment."""

import sys

from services.planner.service import build
from services.runtime.app import run_service
from services.runtime.config import Config
from services.runtime.environment import begin_without_others

begin_without_others("planner")
sys.exit(run_service("planner", build, config=Config.load()))
