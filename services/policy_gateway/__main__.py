"""`python -m services.policy_gateway`: the gateway with the configuration of this environment."""

import sys

from services.policy_gateway.service import SERVICE, build
from services.runtime.app import run_service
from services.runtime.config import Config

sys.exit(run_service(SERVICE, build, config=Config.load()))
