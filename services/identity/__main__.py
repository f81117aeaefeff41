"""`python -m services.identity`: identity with the configuration of this environment."""

import sys

from services.identity.service import build
from services.runtime.app import run_service
from services.runtime.config import Config
from services.runtime.environment import begin_without_others

begin_without_others("identity")
sys.exit(run_service("identity", build, config=Config.load()))
