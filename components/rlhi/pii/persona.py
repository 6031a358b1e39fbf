"""Keeps names, addresses and ids out of a persona: the strict form of redaction.

A persona says how somebody likes to be answered, which takes no name and no number of theirs; so a false alarm costs a
word, and a miss costs a person's privacy. Beyond `redact` it replaces names that the user gives in the messages
(`rlhi.pii.names`) and @handles with ``[NAME]``, postal addresses with ``[ADDRESS]``, and UUIDs, long hexadecimals, runs
of six digits and more, URLs and folders of a user with ``[ID]``.
"""

import re
from collections import Counter
from collections.abc import Sequence

from rlhi.pii.names import HANDLE, NOT_HANDLES, harvest, replacing
from rlhi.pii.redaction import redact

SITE = r"(?:github|gitlab|twitter|x|instagram|facebook|tiktok|kaggle|huggingface|t)\.(?:com|me|co)/[\w-]+"
FOLDER = r"[^\s/]+/(?:[^\s/]+/)*(?:u|users?|profiles?|in|people|members?|@[\w-]+|~[\w-]+)(?:/[\w@-]+)?"
ID = re.compile(
    rf"https?://(?:www\.)?(?:{SITE}|{FOLDER})(?:[^\s)>\]]*[^\s)>\].,;:!?])?(?![\w@-])"
    r"|(?:(?<=/home/)|(?<=/Users/)|(?<=\\Users\\))[\w.-]*\w"
    r"|\b[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}\b"
    r"|\b(?=[0-9]*[A-Fa-f])(?=[A-Fa-f]*[0-9])[0-9A-Fa-f]{12,}\b"
    r"|\b[0-9]{3}-[0-9]{2}-[0-9]{4}\b"
    r"|(?<![\w#])(?:[A-Z]{1,6}[-_#/ ]?)?#?[0-9]{6,}\b"
)

NUMBER = r"\b\d{1,5}(?:[A-Za-z]|[-/]\d{1,4}[A-Za-z]?)?"
WORD = r"[^\W\d_][\w'’.-]*"
CAPITAL = r"(?:[A-ZÀ-ÖØ-Þ][\w'’-]*\.?|\d{1,3}(?:st|nd|rd|th))"
STREET = (
    r"(?:Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct|Way|Place|Pl|Square|Sq|Terrace|Close"
    r"|Highway|Hwy|Parkway|Pkwy|Crescent|Row|Alley|Gardens|Grove|Circle|Cir|Trail|Mews)\b"
)
UNIT = r"(?:,? (?:Apt|Apartment|Suite|Ste|Unit|Flat|Floor|#)\.? ?#?\w{1,6})?"
ZIP = r"\d{5}(?:-\d{4})?"
UK = r"[A-Z]{1,2}\d[A-Z\d]? \d[A-Z]{2}"
TOWN = r"[A-ZÀ-ÖØ-Þ][a-zß-öø-ÿ'’-]+"
CITY = rf"(?:, {TOWN}(?: {TOWN}){{0,2}})?(?:,? [A-Z]{{2}}\b)?(?:,? (?:{ZIP}|{UK})\b)?"
ADDRESS = re.compile(
    "|".join(
        (
            rf"{NUMBER} (?:[NSEW]\.? )?(?:{CAPITAL} ){{1,4}}{STREET}\.?{UNIT}{CITY}",
            r"\b[A-ZÄÖÜ][\wäöüß.-]*(?:straße|strasse|str\.|weg|gasse|platz|allee|laan|straat|gatan|vej) \d{1,4}[a-z]?\b"
            rf"(?:, \d{{4,5}} {CAPITAL})?",
            rf"{NUMBER},? (?:bis |ter )?(?:rue|avenue|boulevard|bd|place|chemin|allée|impasse|quai) (?:{WORD} ){{0,3}}?"
            rf"{CAPITAL}(?: {CAPITAL})*(?:, \d{{5}} {CAPITAL})?",
            r"\b(?:Calle|C/|Avenida|Av\.|Plaza|Paseo|Via|Viale|Piazza|Corso|Rua|Praça)"
            rf" (?:{WORD} ){{0,4}}{WORD},? (?:n[º°.] ?)?\d{{1,5}}\b",
            r"\bP\.? ?O\.? Box \d+\b",
            rf"\b{CAPITAL}(?: {CAPITAL})?,? [A-Z]{{2}},? {ZIP}\b",
            rf"\b\d{{5}} {CAPITAL}(?!\w)|\b\d{{4}} ?[A-Z]{{2}},? {CAPITAL}",
            rf"\b{UK}\b|\b[A-Z]\d[A-Z] \d[A-Z]\d\b",
        )
    )
)


def redact_persona(persona: str, messages: Sequence[str], regions: Sequence[str] = ("US",)) -> tuple[str, Counter[str]]:
    """The persona without personal data, and the hits by placeholder. ``messages`` are the user's own."""
    counts: Counter[str] = Counter()
    text = _sub(ADDRESS, "[ADDRESS]", persona, counts)
    text, found = redact(text, regions=regions)
    counts.update(found)
    text = _sub(ID, "[ID]", text, counts)
    text = _replace_handles(text, counts)
    for pattern in replacing(harvest([*messages, persona])):
        text = _sub(pattern, "[NAME]", text, counts)
    return text, counts


def _replace_handles(text: str, counts: Counter[str]) -> str:
    def replace(match: re.Match[str]) -> str:
        if match[1].lower() in NOT_HANDLES:
            return match[0]
        counts["NAME"] += 1
        return "[NAME]"

    return HANDLE.sub(replace, text)


def _sub(pattern: re.Pattern[str], placeholder: str, text: str, counts: Counter[str]) -> str:
    replaced, hits = pattern.subn(placeholder, text)
    counts += Counter({placeholder.strip("[]"): hits})
    return replaced
