"""Tokens: who calls, with which scopes, on which bases, in which role (reference section 4)."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from kommo_airtable_sync.sandbox.airtable.refusal import not_permitted, not_yours, typed

SCOPES = frozenset((
    "data.records:read", "data.records:write", "schema.bases:read", "schema.bases:write",
    "webhook:manage", "user.email:read"
))  # fmt: skip
_RANK = {"read": 0, "comment": 1, "edit": 2, "create": 3, "owner": 4}


class Token(BaseModel):
    """A personal access token.

    Attributes:
        user: id of its user.
        scopes: what it may do.
        bases: ids of the bases on its access list; None = all.
        role: its user's permission level in them: read, comment, edit, create, owner.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    user: str
    scopes: frozenset[str] = SCOPES
    bases: frozenset[str] | None = None
    role: str = "create"

    def sees(self, base_id: str) -> bool:
        """Whether the base is on the access list."""
        return self.bases is None or base_id in self.bases

    def can(self, role: str) -> bool:
        """Whether the token's role is at least this one."""
        return _RANK[self.role] >= _RANK[role]

    def require(self, base_id: str | None, scope: str, role: str = "read") -> None:
        """Check access list, scope and role.

        Raises:
            Refusal: 403.
        """
        if base_id is not None and not self.sees(base_id):
            raise not_yours()
        if scope not in self.scopes or not self.can(role):
            raise not_permitted()


def bearer(tokens: Mapping[str, Token], headers: Mapping[str, str]) -> Token:
    """The caller's token.

    Args:
        tokens: by secret.
        headers: of the request, names in lower case.

    Raises:
        Refusal: 401, in one spelling for no token and another for a wrong one.
    """
    scheme, _, secret = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not secret.strip():
        raise typed(401, "AUTHENTICATION_REQUIRED", "Authentication required")
    if secret.strip() not in tokens:
        raise typed(401, "UNAUTHORIZED", "Invalid authentication token")
    return tokens[secret.strip()]
