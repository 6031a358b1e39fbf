"""Finds e-mail and IP addresses that may lead to somebody.

An e-mail address stays where its domain is reserved for documentation and tests (RFC 2606, and ``localhost``: it names
nobody), where it is a remote of git or scp (``git@github.com:org/repo.git``), and where it only looks like one: a
matrix product, a package at a version, a file such as ``logo@2x.png``.

An IP address stays where it carries no information, as `ipaddress` decides: private, loopback, link-local,
unspecified, reserved, multicast and documentation ranges, and netmasks. One that reads as a version or a section number
stays too. Of IPv6 only 2000::/3 is looked at, which is all that is handed out so far.
"""

import ipaddress
import re

Span = tuple[int, int]

# A gate is read by RE2 as well as by `re`. Every span contains a match of it, so a line without one has no span.
EMAIL_GATE = r"[^\s@]@[^\s@]+\.[^\s@]"
IP_GATE = r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]|[23][0-9A-Fa-f]{3}:[0-9A-Fa-f]{0,4}:"

LONGEST = 256  # characters before an @ that are looked at
LOCAL = re.compile(r"(?<![\w.%+-])[_.%+-]*+([^\W_][\w.%+-]*+)$")
DOMAIN = re.compile(r"[^\W_](?:[^\W_]|\.(?=[^\W_])|-++(?=[^\W_]))*+(?![\w@]*@|:(?:[/~.]|[\w.-]++/))")
DASHED = re.compile(r"(?<=\.)(?!xn--)([^.-]+)-[^.]*$")  # words that hang on to a top-level domain
CALLED = re.compile(r"(?!(?:com|net|org|edu|gov)\()\w+\(")  # a method of a matrix
RESERVED = re.compile(r"(?:^|\.)(?:example\.(?:com|net|org)|(?:test|invalid|example|localhost))$")
TOP = re.compile(r"[^\W\d_]{2,24}|xn--[a-z0-9-]+")
FILES = re.compile(r"png|jpe?g|gif|svg|webp|ico|s?css|m?jsx?|tsx?|html|json|ya?ml|xml|txt|csv|tgz")
VERSIONED = re.compile(r"v?\d+\.\d|\d+x\.")

IPV4 = re.compile(
    r"[0-9](?<![\w.].)(?<![A-Za-z_]-.)(?:[0-9]{0,2}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3})(?!\w|\.\d|-[A-Za-z]|-[0-9]++(?!\.))",
    re.ASCII,
)
IPV6 = re.compile(r"[23](?<![\w:.].)[0-9A-Fa-f]{3}:[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:]*+(?!\w|\.\d)", re.ASCII)
VERSION = re.compile(
    r"(?:version|(?<![a-z])(?:ver|release|rev|build|firmware|driver|update|patch|section|chapter|figure|table|clause|step))s?"
    r"[\"'>)(:=.]{0,3}[ \t]?(?:is |to |number |no\.? )?[\"'(]?$|(?<![a-z])v[. ]?$|[=~<>!^]=\s*[\"']?$"
    r"|§\s*$|(?:^|[\s(\"'])[A-Za-z]+/$",
    re.IGNORECASE,
)
HEADING = re.compile(r"[#*\s]*")


def email_spans(line: str) -> list[Span]:
    """Where the e-mail addresses stand."""
    found: list[Span] = []
    for at in re.finditer("@", line):
        before, domain = line[max(0, at.start() - LONGEST) : at.start()], DOMAIN.match(line, at.end())
        local = LOCAL.search(before) if domain is not None else None
        if local is None or domain is None:
            continue
        name = DASHED.sub(r"\1", domain[0])
        called = CALLED.match(line, at.end() + name.rfind(".") + 1)
        if called is None and _is_email(local[1], name):
            found.append((at.start() - len(local[1]), at.end() + len(name)))
    return found


def _is_email(local: str, domain: str) -> bool:
    labels = domain.casefold().split(".")
    if len(labels) < 2 or not TOP.fullmatch(labels[-1]) or FILES.fullmatch(labels[-1]):
        return False
    matrix = len(local) == 1 and len(labels[0]) == 1
    return not (matrix or VERSIONED.match(domain) or RESERVED.search(".".join(labels)))


def ip_spans(line: str) -> list[Span]:
    """Where the IP addresses stand, without port, prefix length or zone."""
    four = [match.span() for match in IPV4.finditer(line) if _names_a_host(match[0]) and not _is_version(line, match)]
    six = [
        (match.start(), match.start() + len(address))
        for match in IPV6.finditer(line)
        if _names_a_host(address := _without_last_colon(match[0]))
    ]
    return sorted(four + six)


def _without_last_colon(text: str) -> str:
    return text[:-1] if text.endswith(":") and not text.endswith("::") else text


def _names_a_host(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return address.is_global and not address.is_multicast and not _is_netmask(address)


def _is_netmask(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether the bits are ones, then zeros."""
    inverted: int = int(address) ^ (2**address.max_prefixlen - 1)
    return inverted & (inverted + 1) == 0


def _is_version(line: str, match: re.Match[str]) -> bool:
    before = line[max(0, match.start() - 24) : match.start()]
    if VERSION.search(before):
        return True
    small = all(int(part) < 20 for part in match[0].split("."))
    titled = re.match(r"\.?[ \t]+[A-Z]", line[match.end() : match.end() + 8])
    return small and titled is not None and HEADING.fullmatch(line, 0, match.start()) is not None
