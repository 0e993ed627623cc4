"""A key-value bucket of NATS JetStream. Its client, nats-py, is loaded only when it is used."""

import asyncio
import contextlib
import importlib
from collections.abc import Sequence
from typing import Any, Self

from chaos.bench.recording import DONE, OperationEnd

_BUCKET = "bench"
_TIMEOUT_S = 30.0
_START_S = 30.0


class NatsStore:
    """A bucket, and the connection that all sessions share."""

    def __init__(self, client: Any, bucket: Any) -> None:
        self._client = client
        self._bucket = bucket

    @classmethod
    async def connect(cls, urls: Sequence[str], *, replicas: int) -> Self:
        """Make the bucket, once the servers have elected who keeps it. Raises `TimeoutError`."""
        nats: Any = importlib.import_module("nats")
        api: Any = importlib.import_module("nats.js.api")
        client = await nats.connect(list(urls), connect_timeout=5, pending_size=64 * 1024**2)
        stream = client.jetstream(timeout=_TIMEOUT_S)
        # Without `direct` reads are answered by the leader, as Synod's and etcd's are.
        wanted = api.KeyValueConfig(bucket=_BUCKET, replicas=replicas, history=1)
        try:
            async with asyncio.timeout(_START_S):
                while True:
                    # Until a leader is elected requests are refused, or not answered.
                    with contextlib.suppress(nats.errors.Error):
                        return cls(client, await stream.create_key_value(wanted))
                    await asyncio.sleep(0.2)
        except BaseException:
            await client.close()
            raise

    def session(self, size_bytes: int) -> "NatsSession":
        """One client."""
        return NatsSession(self._bucket, size_bytes)

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()


class NatsSession:
    """A `StoreSession` on a shared connection."""

    def __init__(self, bucket: Any, size_bytes: int) -> None:
        self._bucket = bucket
        self._size_bytes = size_bytes

    async def read(self, key: str) -> OperationEnd:
        """See `StoreSession`."""
        try:
            entry = await self._bucket.get(key)
        except Exception as error:  # The client's errors have no common ground with timeouts.
            return OperationEnd("failed", f"{type(error).__name__}: {error}")
        if len(entry.value) != self._size_bytes:
            return OperationEnd("failed", "the answer does not hold the value")
        return DONE

    async def write(self, key: str, content: bytes) -> OperationEnd:
        """See `StoreSession`."""
        try:
            await self._bucket.put(key, content)
        except Exception as error:
            return OperationEnd("failed", f"{type(error).__name__}: {error}")
        return DONE

    def close(self) -> None:
        """See `StoreSession`."""
