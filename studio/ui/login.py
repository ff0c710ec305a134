"""As whom the page pushes to the Hub. Knows no component.

On a Space it is the visitor who logged in, and nobody else; on a page of this machine alone its owner, by the login
that the Hub's client has. A page that is open to others pushes for nobody without a login of their own.
"""

import os

from studio.base.errors import HubError
from studio.base.settings import settings
from studio.checkpoint.hub_client import own_token


def has_login() -> bool:
    """Return whether visitors can log in: on a Space whose card asks for that."""
    return bool(os.environ.get("OAUTH_CLIENT_ID"))


def can_push() -> bool:
    """Return whether there is anybody to push as."""
    return has_login() or settings().is_private


def owners_token() -> str:
    """Return the login of whoever runs this machine. Raises HubError where there is none, or others see the page."""
    token = own_token() if settings().is_private and not has_login() else None
    if token is None:
        raise HubError("push_no_token")
    return token
