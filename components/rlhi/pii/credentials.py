"""Finds secrets: tokens of known forms, private keys, passwords in URLs, and values assigned to the name of a secret.

The forms are those of detect-secrets' typed detectors, without its entropy detectors, which take ordinary text for
secrets, and those of services that it does not know yet. A secret's name alone proves nothing, so an assigned value
must hold letters and digits (a password may be digits alone), and be no code, type, path or placeholder: a password of
letters only stays. What is documentation stays as well: ``YOUR_API_KEY``, ``sk-xxxx``, ``<token>``, ``${TOKEN}``.
"""

import re

from detect_secrets.plugins.aws import AWSKeyDetector
from detect_secrets.plugins.azure_storage_key import AzureStorageKeyDetector
from detect_secrets.plugins.discord import DiscordBotTokenDetector
from detect_secrets.plugins.github_token import GitHubTokenDetector
from detect_secrets.plugins.gitlab_token import GitLabTokenDetector
from detect_secrets.plugins.pypi_token import PypiTokenDetector
from detect_secrets.plugins.sendgrid import SendGridDetector
from detect_secrets.plugins.slack import SlackDetector
from detect_secrets.plugins.square_oauth import SquareOAuthDetector
from detect_secrets.plugins.telegram_token import TelegramBotTokenDetector
from detect_secrets.plugins.twilio import TwilioKeyDetector

from rlhi.pii.addresses import Span
from rlhi.pii.numbers import merged

# detect-secrets' patterns, each with a gate: what every match contains, in the common language of RE2 and `re`. Gates
# are short, since long repetitions make RE2's automaton outgrow its cache.
TYPED = {
    r"(?:A3T|ABIA|ACCA|AKIA|ASIA)[0-9A-Z]{6}": AWSKeyDetector.denylist[:1],
    r"AccountKey=": AzureStorageKeyDetector.denylist,
    r"\.[a-zA-Z0-9_-]{6}\.[a-zA-Z0-9_-]{27}": DiscordBotTokenDetector.denylist,
    r"gh[opusr]_[A-Za-z0-9_]{6}": GitHubTokenDetector.denylist,
    r"gl[a-z]{2,5}-[A-Za-z0-9_-]{10}|GR1348941": GitLabTokenDetector.denylist,
    r"pypi-AgE": PypiTokenDetector.denylist,
    r"SG\.[a-zA-Z0-9_-]{9}": SendGridDetector.denylist,
    r"(?i:xox[abposr]-[0-9]|hooks\.slack\.com/services/T)": SlackDetector.denylist,
    r"sq0csp-": SquareOAuthDetector.denylist,
    r"[0-9]{8}:[0-9A-Za-z_-]{9}": TelegramBotTokenDetector.denylist,
    r"(?:AC|SK)[a-z0-9]{10}": TwilioKeyDetector.denylist,
}
DETECTED = [
    re.compile(pattern.pattern, (pattern.flags & ~re.UNICODE) | re.ASCII)
    for group in TYPED.values()
    for pattern in group
]

# Whole tokens: each is read by RE2 as it stands.
TOKENS = "|".join(
    (
        r"sk-[A-Za-z0-9_-]{20,}",  # OpenAI, Anthropic, OpenRouter, DeepSeek
        r"AIza[0-9A-Za-z_-]{35}",
        r"GOCSPX-[0-9A-Za-z_-]{28}",
        r"ya29\.[0-9A-Za-z_-]{20,}",
        r"github_pat_[A-Za-z0-9_]{22,}",
        r"hf_[A-Za-z0-9]{30,}",
        r"gl[a-z]{2,5}-[A-Za-z0-9_-]{20,}(?:\.[0-9a-z]{2}\.[0-9a-z]{7,9})?",
        r"[sr]k_(?:live|test)_[0-9A-Za-z]{16,}",
        r"whsec_[A-Za-z0-9+/]{24,}",
        r"xox[a-z]-[0-9A-Za-z-]{20,}",
        r"xapp-[0-9]-[0-9A-Za-z-]{20,}",
        r"[0-9a-f]{32}-us[0-9]{1,2}",  # Mailchimp
        r"npm_[A-Za-z0-9]{36}",
        r"gsk_[A-Za-z0-9]{40,}",
        r"xai-[A-Za-z0-9]{40,}",
        r"r8_[A-Za-z0-9]{37}",
        r"pplx-[A-Za-z0-9]{40,}",
        r"dop_v1_[a-f0-9]{64}",
        r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}",
        r"dapi[a-f0-9]{32}",
        r"https://(?:canary\.|ptb\.)?discord(?:app)?\.com/api/webhooks/[0-9]{17,20}/[A-Za-z0-9_-]{60,}",
        r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]+)?",  # JSON Web Token
    )
)
TOKEN = re.compile(rf"(?<![A-Za-z0-9_-])(?:{TOKENS})", re.ASCII)

KEY_LITERAL = "PRIVATE KEY"
KEY_GATE = r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY"
KEY = re.compile(
    rf"{KEY_GATE}(?: BLOCK)?-----"
    r"(?:([^-]*+(?:-(?!----)[^-]*+)*+)-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
    r"|((?:(?:\s|\\[nr])*+[A-Za-z0-9+/=]{32,}+)++))",
    re.ASCII,
)
KEY_BODY = re.compile(r"[A-Za-z0-9+/]{24}")

URL_GATE = r"://[^\s:/?#@]*:[^\s/@]+@"
URL = re.compile(r"://[^\s:/?#\[\]@\"'<>]*+:([^\s/@\"'<>\[\]]++)@")

# Faster: a pattern that begins with a set of characters, which `re` skips to, and then looks back at the one it took.
HEADER_GATE = (
    r"(?i:bearer[ \t]+|authorization[\"']?[ \t]*[:=,][ \t]*[\"']?(?:basic|token|apikey)[ \t]+)[A-Za-z0-9._~+/-]{16}"
)
HEADER = re.compile(
    r"[AaBb](?i:(?<=b)earer|(?<=a)uthorization[\"']?[ \t]*[:=,][ \t]*[\"']?(?:basic|token|apikey))[ \t]+"
    r"([A-Za-z0-9._~+/-]{16,}+=*)",
    re.ASCII,
)

LOGIN = r"pass(?:word|wd|phrase|code)|pwd"
SAID = r"(?:[\"'`]\]?)?[ \t]{0,4}(?::=|=>|={1,3}|:|[ \t](?i:is):?[ \t])[ \t]{0,4}"
FLAG = rf"--(?i:{LOGIN}|token|api-key|secret)[ =]"
ASSIGNED_GATE = rf"(?:(?i:{LOGIN}|secret|token|key|credential){SAID}|{FLAG})[bfru]?[\"'`]?[^\s<>]*[0-9]"
ASSIGNED = re.compile(
    r"[PpSsTtKkCc-](?:"
    r"((?i:(?<=p)ass(?:word|wd|phrase|code)|(?<=p)wd|(?<=s)ecret|(?<=t)oken|(?<=k)ey|(?<=c)redential))"
    rf"{SAID}|(?<=-)({FLAG[1:]}))"
    r"(?:[bfru]?(?:\"([^\"\s<>]{6,}+)\"|'([^'\s<>]{6,}+)'|`([^`\s<>]{6,}+)`)|([^\s\"'`<>(){}\[\],;]{6,}+)(?![(\[{]))",
    re.ASCII,
)
KEY_OF = re.compile(r"(?:api|access|account|auth|encryption|private|secret|license|service)[_ -]?$", re.IGNORECASE)

BARE = 6  # the group of a value without quotes
# Shorter repetitions, open at the end: whatever the longer ones match, these match.
TOKENS_GATE = re.sub(r"\{(\d+)(?:,\d*)?\}", lambda count: f"{{{min(int(count[1]), 12)},}}", TOKENS)
GATE = "|".join((*TYPED, TOKENS_GATE, KEY_GATE, URL_GATE, HEADER_GATE, ASSIGNED_GATE))

PLACEHOLDER = re.compile(
    r"your|\bmy[_-]|x{4}|X{3}|\*{2}|\.{3}|…|[{}<>]|^[$%]|\[[A-Z]+\]|example|placeholder|redacted|dummy|sample|insert|replace"
    r"|change[_-]?me|anonymi[sz]ed|abcdefgh|12345678|[_-]here\b|foobar|^(?:the|enter|some|test|fake)[_-]|^(.)\1+$"
    rf"|^(?:{LOGIN}|pass|secret|token|key|user|admin|root|test|guest|api_?key)[_-]?\d*$",
    re.IGNORECASE,
)
MIXED = re.compile(r"(?:[a-z]{1,8}[A-Z]{1,8}){4}")
RULE = re.compile(
    r"^(?:u?int|float|utf-?|sha-?|base|md|aes|rsa|str|string|varchar|required|min|max|len)[\d|:-].*$|^https?:|[|]",
    re.IGNORECASE,
)
CODE = re.compile(
    r"^[A-Za-z_]+(?:[._:-][A-Za-z_]+)+\d{0,2}$|^[a-z]+(?:[A-Z][a-z]+)+\d?$|^(?:self|this|os|process|config|env|args|req)\."
    r"|^[./~\\@#&+]|::|->|^0x|\.[a-z]{2,4}$"
)


def secret_spans(line: str) -> list[Span]:
    """Where the secrets stand: the value alone, not its name, and of a URL its password."""
    whole = [match for pattern in (*DETECTED, TOKEN) for match in pattern.finditer(line)]
    found = [match.span() for match in whole if _is_token(match[0])]
    found += [match.span(1) for match in URL.finditer(line) if not PLACEHOLDER.search(match[1])]
    found += [match.span(1) for match in HEADER.finditer(line) if _is_token(match[1])]
    found += [span for match in ASSIGNED.finditer(line) if (span := _assigned(match)) is not None]
    return merged(found)


def key_spans(text: str) -> list[Span]:
    """Where the private keys stand, from BEGIN to END, or to the last full line of one that was cut."""
    if KEY_LITERAL not in text:
        return []
    return [match.span() for match in KEY.finditer(text) if KEY_BODY.search(match[1] or match[2] or "")]


def _is_token(value: str) -> bool:
    """Random characters hold digits, or change their case often; words do neither."""
    random = sum(map(str.isdigit, value)) >= 2 or MIXED.search(value) is not None
    return random and not PLACEHOLDER.search(value)


def _assigned(match: re.Match[str]) -> Span | None:
    """Where the value of an assignment stands, if it is a secret."""
    group = match.lastindex or 0
    value = match[group].rstrip(".:?") if group == BARE else match[group]
    name = (match[1] or match[2]).lower()
    if name == "ey" and not KEY_OF.search(match.string, max(0, match.start() - 12), match.start()):
        return None
    start = match.start(group)
    return (
        (start, start + len(value)) if _is_secret(value, name.startswith(("ass", "wd", "-p")), group == BARE) else None
    )


def _is_secret(value: str, password: bool, bare: bool) -> bool:
    digits = len(re.findall("[0-9]", value))
    if not digits or len(value) < 6 or PLACEHOLDER.search(value) or RULE.search(value):
        return False
    if bare and CODE.search(value):
        return False
    mixed = bool(re.search("[A-Za-z]", value))
    return password or (mixed and len(value) >= 8 and (not bare or (len(value) >= 10 and digits >= 3)))
