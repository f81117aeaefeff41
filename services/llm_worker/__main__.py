"""Run llm-worker in this process: `python -m services.llm_worker`."""

import sys

from services.llm_worker.service import SERVICE, build
from services.runtime.app import run_service
from services.runtime.config import Config

sys.exit(run_service(SERVICE, build, config=Config.load()))
