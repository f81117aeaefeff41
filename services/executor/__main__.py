"""`python -m services.executor`: one executor in this process."""

import sys

from services.executor.service import build
from services.runtime.app import run_service
from services.runtime.config import Config

sys.exit(run_service("executor", build, config=Config.load()))
