"""Credentials that Lance asks for again before they end.

Lance takes renewed credentials from a namespace alone (lance.org/guide/object_store). So a table whose credentials end
is opened through a namespace that holds this one table. Importing this module takes Lance's REST client along.
"""

from typing import Any

from lance_namespace import DeclareTableResponse, DescribeTableResponse, LanceNamespace

from mantis.store.base import ObjectStore


class TableNamespace(LanceNamespace):
    """Tells Lance where the table at `key` lies, and the credentials that are valid now."""

    def __init__(self, store: ObjectStore, key: str) -> None:
        self._store, self._key = store, key

    def namespace_id(self) -> str:
        """Lance shares clients between namespaces of one id, so the server is a part of it."""
        return f"{self._store.lance_options().get('aws_endpoint', '')} {self._store.uri(self._key)}"

    def describe_table(self, request: Any) -> DescribeTableResponse:
        """The place of the table and fresh credentials; Lance calls it before the former ones end."""
        return DescribeTableResponse(
            location=self._store.lance_uri(self._key), storage_options=self._store.lance_options()
        )

    def declare_table(self, request: Any) -> DeclareTableResponse:
        """The same for a table that is about to be written."""
        return DeclareTableResponse(
            location=self._store.lance_uri(self._key), storage_options=self._store.lance_options()
        )
