"""Tell a webhook that a run has ended. MANTIS_WEBHOOK_URL names it; Slack, Mattermost and others take its JSON.

The address is a secret: who knows it may post. So no log and no error holds it.
"""

import json
import logging
import os
import urllib.error
import urllib.request
from collections.abc import Mapping

from mantis.runs.step_runner import Run

logger = logging.getLogger(__name__)

ADDRESS = "MANTIS_WEBHOOK_URL"
SECONDS = 10.0  # for the server to answer; the run is closed without it
LONGEST = 2000  # characters of a reason


def message_of(run: Run, status: str, *, failed: Mapping[str, str], verdict: str, link: str) -> str:
    """What people read: run, recipe and status, then the reason of each failed step or the verdict, then the report."""
    lines = [f"Run {run.id} of recipe {run.recipe.name}: {status}"]
    lines += [f"{step} failed: {reason.strip()[:LONGEST]}" for step, reason in failed.items()]
    lines += [line for line in (verdict, link) if line]
    return "\n".join(lines)


def send_webhook(text: str) -> bool:
    """Post `text`; whether a server took it. Without an address nothing is sent. A problem is logged."""
    address = os.environ.get(ADDRESS, "")
    if not address:
        return False
    if not address.startswith(("https://", "http://")):
        logger.warning("%s is no address of HTTP: nothing is sent", ADDRESS)
        return False
    body = json.dumps({"text": text}).encode()
    request = urllib.request.Request(address, data=body, headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=SECONDS):
            return True
    except urllib.error.HTTPError as error:
        logger.warning("The webhook of %s answers with status %d", ADDRESS, error.code)
    except (OSError, ValueError) as error:
        logger.warning("The webhook of %s does not answer (%s)", ADDRESS, type(error).__name__)
    return False
