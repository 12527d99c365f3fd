"""Files of Python packages, from the index this user's pip asks: PyPI, or the mirror pip was pointed at.

Protocol: PEP 503 (pages of links) and PEP 691 (JSON). Settings are pip's own, by `pip config list`: its files and
its PIP_ variables. It does not know what is in a package.
"""

import ast
import json
import os
import re
import subprocess
import sys
import urllib.error
from collections.abc import Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from http.client import HTTPException
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from seventy.errors import SeventyError
from seventy.hub.download import Network
from seventy.language import sentences, t

PYPI = "https://pypi.org/simple"
_ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
_MAX_PAGE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Link:
    url: str
    sha256: str | None


@dataclass(frozen=True, slots=True)
class PackageIndex:
    """`indexes` have a page per project, `places` are folders or pages of files."""

    indexes: tuple[str, ...]
    places: tuple[str, ...]
    network: Network

    @classmethod
    def of_pip(cls) -> "PackageIndex":
        settings = _pip_settings()
        indexes = [settings.get("index-url", PYPI), *settings.get("extra-index-url", "").split()]
        if settings.get("no-index", "").lower() in ("1", "true", "yes", "on"):
            indexes = []
        logins = {}
        for url in indexes:
            login, _, host = urlsplit(url).netloc.rpartition("@")
            if login:
                logins[host] = login
        timeout = settings.get("timeout") or settings.get("default-timeout") or ""
        return cls(
            indexes=tuple(url.rstrip("/") for url in indexes),
            places=tuple(settings.get("find-links", "").split()),
            network=Network(
                timeout_seconds=float(timeout) if re.fullmatch(r"\d+(\.\d+)?", timeout) else 30.0,
                certificates=settings.get("cert"),
                trusted_hosts=frozenset(settings.get("trusted-host", "").split()),
                proxy=settings.get("proxy"),
                credentials=logins,
            ),
        )

    def find(self, project: str, pattern: str) -> Link:
        """Return the first file of `project` whose whole name matches the regular expression `pattern`.

        Raises SeventyError that names every index that was asked and its answer.
        """
        name, said = re.compile(pattern), []
        normal = re.sub(r"[-_.]+", "-", project).lower()
        for url in [*self.places, *(f"{index}/{normal}/" for index in self.indexes)]:
            try:
                links = self._links(url)
            except urllib.error.HTTPError as error:
                error.close()
                said.append(f"{_without_login(url)}: {error.code} {error.reason}")
                continue
            except (urllib.error.URLError, HTTPException, OSError, ValueError) as error:
                said.append(t("{url}: {reason}", url=_without_login(url), reason=error))
                continue
            for file, link in links.items():
                if name.fullmatch(file):
                    return link
            said.append(t("{url}: not there", url=_without_login(url)))
        asked = sentences(said) or t("pip is told to ask no index")
        raise SeventyError(
            "no file of package {project} found ({asked}); check the network or pip's index-url",
            project=project, asked=asked,
        )

    def _links(self, url: str) -> Mapping[str, Link]:
        folder = _folder(url)
        if folder is not None:
            if folder.is_dir() and not (folder / "index.html").exists():
                return {path.name: Link(path.as_uri(), None) for path in sorted(folder.iterdir())}
            url = (folder / "index.html" if folder.is_dir() else folder).as_uri()
        response, _ = self.network.open(url, {"Accept": _ACCEPT})
        with response:
            page = response.read(_MAX_PAGE_BYTES)
            kind = response.headers.get("Content-Type", "")
            base = response.geturl()
        if "json" in kind:
            return {
                file["filename"]: Link(urljoin(base, file["url"]), file.get("hashes", {}).get("sha256"))
                for file in json.loads(page)["files"]
            }
        parser = _Links()
        parser.feed(page.decode("utf-8", "replace"))
        links = {}
        for href in parser.hrefs:
            address, _, fragment = urljoin(base, href).partition("#")
            digest = fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else None
            links[unquote(urlsplit(address).path.rpartition("/")[2])] = Link(address, digest)
        return links


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.hrefs: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.hrefs += [value for name, value in attrs if tag == "a" and name == "href" and value]


def _folder(url: str) -> Path | None:
    if url.startswith("file:"):
        return Path(unquote(urlsplit(url).path))
    return None if "://" in url else Path(url).expanduser()


def _without_login(url: str) -> str:
    return re.sub(r"//[^/@]*@", "//", url)


def _pip_settings() -> dict[str, str]:
    """pip's settings for a download; without pip, those of its PIP_ variables."""
    # Least important first.
    found: dict[str, dict[str, str]] = {"global": {}, "download": {}, ":env:": {}}
    for name, value in os.environ.items():
        if name.startswith("PIP_"):
            found[":env:"][name[4:].lower().replace("_", "-")] = value
    command = [sys.executable, "-m", "pip", "config", "list", "--disable-pip-version-check"]
    listed = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    for line in listed.stdout.splitlines():
        match = re.fullmatch(r"(global|download)\.([\w-]+)=(['\"].*['\"])", line)
        if match:
            found[match[1]][match[2]] = str(ast.literal_eval(match[3]))
    return {name: value for level in found.values() for name, value in level.items()}
