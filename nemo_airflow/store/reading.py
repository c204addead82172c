"""A shared store in a bucket whose service computes no SHA-256: what a job has sent there is read once."""

from __future__ import annotations

import abc

from nemo_airflow.store.buckets import ObjectPlace


class ReadingPlace(ObjectPlace):
    """Files as objects; see :class:`.ObjectPlace` and :class:`nemo_airflow.store.incoming.DirectPlace`."""

    tag_field: str
    """Name of what the service tells of an object that changes with its content."""

    def verify(self, name: str, sha256: str, size: int) -> str:
        """Compares an object with its SHA-256, by reading it.

        Returns:
            The object's tag as it was before that: whoever copies the object with it copies what was read.

        Raises:
            StoreError: It is not there, or another one.
        """
        found = self._info(name)
        if found is None:
            raise self.missing(name)
        with self._errors():
            if int(found["size"]) != size or self.read_digest(name) != sha256:
                raise self.not_as_named(name)
        return str(found[self.tag_field])

    @abc.abstractmethod
    def copy(self, source: str, target: str, tag: str) -> None:
        """Has the service copy an object to another name of the store.

        Args:
            source: Its name.
            target: The copy's name.
            tag: The object's tag; see :meth:`verify`.

        Raises:
            StoreError: It is not there, or was changed meanwhile; or the service refuses.
        """
