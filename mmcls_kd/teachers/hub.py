"""The hub of Hugging Face: whether a model can be had, found within seconds and before the libraries try for longer."""

from __future__ import annotations

import functools
import logging
import ssl
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, getproxies, urlopen

logger = logging.getLogger(__name__)
#: Time in which the hub has to answer, in s.
PATIENCE = 3


def check_hub(name: str) -> None:
    """Refuse a model that is neither a folder nor in the cache, where the hub cannot be reached.

    The libraries would try six times, for about 24 s a file.

    Args:
        name: Name of the model, or its folder.

    Raises:
        ValueError: Names the model and the remedies.
    """
    from huggingface_hub import constants, try_to_load_from_cache

    if Path(name).expanduser().is_dir():
        return
    try:
        cached = isinstance(try_to_load_from_cache(name, 'config.json'), str)
    except ValueError:  # no name of a model; the libraries say so at once
        return
    offline = constants.HF_HUB_OFFLINE
    reason = 'HF_HUB_OFFLINE is set' if offline else unreachable(constants.ENDPOINT)
    if reason and not cached:
        raise ValueError(
            f'hf:{name}: the model is neither a folder here nor in the cache ({constants.HF_HUB_CACHE}), and '
            f'{constants.ENDPOINT} cannot be asked ({reason}): save the model elsewhere (save_pretrained) and give hf:FOLDER'
        )
    if reason and not offline:
        logger.warning(
            f'hf:{name} is in the cache, and {constants.ENDPOINT} does not answer: HF_HUB_OFFLINE=1 saves waiting'
        )


@functools.cache
def unreachable(address: str) -> str:
    """Return why a server cannot be reached; empty if it answers, whatever it says, or behind a proxy of another kind."""
    if 'all' in getproxies():
        return ''
    try:
        with urlopen(Request(address, method='HEAD'), timeout=PATIENCE):
            return ''
    except HTTPError:
        return ''
    except (OSError, HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        return '' if isinstance(reason, ssl.SSLError) else str(reason)
