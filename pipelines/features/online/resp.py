"""A client of Redis' protocol (RESP2) over a socket, with no more than a store of updates needs."""

import socket
from types import TracebackType
from typing import TypeAlias
from urllib.parse import unquote, urlsplit

from dlen_cam2.utils.errors import UserError

Reply: TypeAlias = "bytes | int | list[Reply] | None"


class Client:
    """A connection, opened by the first command and again by the first after a failure.

    A command whose answer did not come may have been done or not: the error says so, and it is not sent again.

    Args:
        url: "redis://:password@host:6379/0"; the password, the port and the database may be left out.
        timeout_s: seconds to wait for the server.

    Raises:
        UserError: `url` is none of these.
    """

    def __init__(self, url: str, timeout_s: float = 5.0):
        parts = urlsplit(url)
        database = parts.path.strip("/") or "0"
        try:
            port = parts.port or 6379
        except ValueError:
            port = -1
        if parts.scheme != "redis" or not parts.hostname or not database.isdigit() or port < 0:
            raise UserError(f"the url must be redis://:PASSWORD@HOST:PORT/DATABASE. Received: {url!r}.")
        self.name = f"redis://{parts.hostname}:{port}/{database}"  # without the password
        self._address, self._timeout_s = (parts.hostname, port), timeout_s
        user = [unquote(parts.username)] if parts.username else []
        self._greeting = [("AUTH", *user, unquote(parts.password))] if parts.password else []
        self._greeting += [("SELECT", database)] if database != "0" else []
        self._socket: socket.socket | None = None
        self._read = b""

    def __call__(self, *command: str | bytes | int) -> Reply:
        """Send a command and return its answer.

        Raises:
            UserError: the server cannot be reached, does not answer in time, or answers with an error.
        """
        try:
            if self._socket is None:
                self._socket = socket.create_connection(self._address, self._timeout_s)
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._read = b""
                try:
                    for greeting in self._greeting:
                        self._answer(greeting)
                except UserError:  # or the next command would come without it
                    self.close()
                    raise
            return self._answer(command)
        except OSError as error:
            self.close()
            raise UserError(f"{self.name} must answer {command[0]!s}; it may have been done or not. "
                            f"Received: {error}.") from error

    def _answer(self, command: tuple[str | bytes | int, ...]) -> Reply:
        assert self._socket is not None
        words = [word if isinstance(word, bytes) else str(word).encode() for word in command]
        self._socket.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in words))
        try:
            return self._reply()
        except ReplyError as error:
            raise UserError(f"{self.name} must accept {command[0]!s}. Received: {error}.") from error

    def _reply(self) -> Reply:
        line = self._line()
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return rest
        if kind == b"-":
            raise ReplyError(rest.decode("utf-8", "replace"))
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self._bytes(int(rest) + 2)[:-2]
        if kind == b"*":
            return None if rest == b"-1" else [self._reply() for _ in range(int(rest))]
        raise ConnectionError(f"no Redis: {line[:40]!r}")

    def _line(self) -> bytes:
        while (end := self._read.find(b"\r\n")) < 0:
            self._more()
        line, self._read = self._read[:end], self._read[end + 2:]
        return line

    def _bytes(self, count: int) -> bytes:
        while len(self._read) < count:
            self._more()
        found, self._read = self._read[:count], self._read[count:]
        return found

    def _more(self) -> None:
        assert self._socket is not None
        if not (found := self._socket.recv(65536)):
            raise ConnectionError("the connection was closed")
        self._read += found

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()


class ReplyError(Exception):
    """The server's answer is an error."""
