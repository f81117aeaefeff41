"""`python -m services.identity`: identity with the configuration of this environment."""

import sys

from services.identity.service import build
from services.runtime.app import run_service
from services.runtime.config import Config

sys.exit(run_service("identity", build, config=Config.load()))
