"""Every rank logs one line."""

import logging

from mantis.logging import configure

configure()
logging.getLogger("components.training.example").info("hello")
