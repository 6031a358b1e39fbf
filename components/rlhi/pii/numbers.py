"""Finds card numbers, IBANs and phone numbers.

A card number has the first digits of an issuer, that issuer's length, a valid Luhn sum, and no separators or those of a
printed card. An IBAN has its country's length and valid check digits (ISO 13616). A phone number is valid to
phonenumbers: international ones with a plus of any country, national ones of the given regions, grouped as they are
written there; a bare run of digits only where a word nearby says that it is a phone number. Digits are ASCII digits.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from phonenumbers import Leniency, PhoneMetadata, PhoneNumberMatcher

from rlhi.errors import InputError
from rlhi.pii.addresses import Span

CARD_GATE = r"[2-6][0-9](?:[ -]?[0-9]){12}"
IBAN_GATE = r"[A-Z]{2}[0-9]{2}(?:[ -]?[A-Z0-9]){11}"

CARD = re.compile(
    r"[2-6](?<![\w.].)(?<!\d-.)(?:[0-9]{13,18}"
    r"|[0-9]{3}([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{4}(?:\1[0-9]{3})?"
    r"|[0-9]{3}([ -])[0-9]{6}\2[0-9]{4,5})(?!\w|\.\d|-\d|,\d{6})",
    re.ASCII,
)
ISSUED = re.compile(
    r"4[0-9]{15}(?:[0-9]{3})?|5[1-5][0-9]{14}|2(?:22[1-9]|2[3-9][0-9]|[3-6][0-9]{2}|7[01][0-9]|720)[0-9]{12}"
    r"|3[47][0-9]{13}|3(?:0[0-5]|[689][0-9])[0-9]{11}|35(?:2[89]|[3-8][0-9])[0-9]{12}"
    r"|(?:6011|65[0-9]{2}|64[4-9][0-9])[0-9]{12}|62[0-9]{14}(?:[0-9]{3})?"
)

# How long an IBAN is, by country.
LENGTHS = """
    AD24 AE23 AL28 AO25 AT20 AX18 AZ28 BA20 BE16 BF28 BG22 BH22 BI27 BJ28 BL27 BR29 BY28 CF27 CG27 CH21 CI28 CM27 CR22
    CV25 CY28 CZ24 DE22 DJ27 DK18 DO28 DZ26 EE20 EG29 ES24 FI18 FK18 FO18 FR27 GA27 GB22 GE22 GF27 GG22 GI23 GL18 GP27
    GQ27 GR27 GT28 GW25 HN28 HR21 HU28 IE22 IL23 IM22 IQ23 IR26 IS26 IT27 JE22 JO30 KM27 KW30 KZ20 LB28 LC32 LI21 LT20
    LU20 LV21 LY25 MA28 MC27 MD24 ME22 MF27 MG27 MK19 ML28 MN20 MQ27 MR27 MT31 MU30 MZ25 NC27 NE28 NI28 NL18 NO15 OM23
    PF27 PK24 PL28 PM27 PS29 PT25 QA29 RE27 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SN28 SO23 ST25 SV28 TD27
    TF27 TG28 TL23 TN24 TR26 UA29 VA22 VG24 WF27 XK20 YE30 YT27
"""
IBANS = {country[:2]: re.compile(rf"(?:[ -]?[A-Z0-9]){{{country[2:]}}}(?![A-Za-z0-9])") for country in LENGTHS.split()}
IBAN_START = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?=[ -]?[A-Z0-9]{2})")

FEWEST = 7  # digits of a phone number with its country's code; fewer are too common to be one
MARK = "[-().\\[\\]/~\u00ad\u200b\u2010-\u2015\u2060\u2212\u30fc\uff08\uff09\uff0d-\uff0f]"
SPACE = "[ \u00a0\u3000]"
BETWEEN = f"(?:{SPACE}?{MARK}{{1,2}}{SPACE}?|{SPACE})?"  # two spaces are columns of a table
RUN = re.compile(rf"[+(\[0-9](?:(?<=[0-9])|[+(\[ ]{{0,2}}[0-9])(?:(?!\.[0-9]{{5}}){BETWEEN}+[0-9]){{{FEWEST - 1},}}+")
CHUNK = 256  # characters of a run that the matcher reads at a time, and how often it may fail there: the time is linear
TRIES = 256
BEFORE, AFTER = 3, 48  # what it needs to see around: a currency sign, the rest of a number, an extension
MENTION = re.compile(
    r"phone|\btele?\b|\btel[.:]|\bcall|\btext(?:ed)? (?:me|him|her|us)|mobile|\bcell|whats\s?app|telegram|\bfax|\bsms\b"
    r"|\bdial|\bcontact|\breach (?:me|him|her|us)|\bph\b|\bwa\.me|\bring me|handy|móvil|portable",
    re.IGNORECASE,
)
PART = re.compile(r"\w$|[0-9][.,:]$")
DATE = re.compile(r"(?:19|20)[0-9]{2}([-/.])(?:0[1-9]|1[0-2])\1[0-3][0-9](?![0-9])( [0-2][0-9]$)?")
DECIMAL = re.compile(r"\+?\d{1,3}\.\d{4,}(?:[ ,]|$)|\d{1,3}\.\d{6,}")


def card_spans(line: str) -> list[Span]:
    """Where the card numbers stand."""
    return [match.span() for match in CARD.finditer(line) if _is_card(re.sub("[ -]", "", match[0]))]


def _is_card(digits: str) -> bool:
    """Luhn: from the right every second digit counts double, by the sum of its digits."""
    doubled = "".join(str(int(digit) * (1 + place % 2)) for place, digit in enumerate(reversed(digits)))
    return bool(ISSUED.fullmatch(digits)) and sum(map(int, doubled)) % 10 == 0


def iban_spans(line: str) -> list[Span]:
    """Where the IBANs stand, in one piece or in groups."""
    found: list[Span] = []
    for match in IBAN_START.finditer(line):
        end = _iban_end(line, match.start())
        if end is not None and (not found or match.start() >= found[-1][1]):
            found.append((match.start(), end))
    return found


def _iban_end(line: str, start: int) -> int | None:
    """Where the IBAN that begins at ``start`` ends; the country says how long it is."""
    pattern = IBANS.get(line[start : start + 2])
    match = pattern.match(line, start) if pattern is not None else None
    return match.end() if match is not None and _is_iban(re.sub("[ -]", "", match[0])) else None


def _is_iban(text: str) -> bool:
    """The remainder by 97, letters counting from A = 10, with the country and the check digits moved to the end."""
    number = "".join(str(int(character, 36)) for character in text[4:] + text[:4])
    return int(number) % 97 == 1 and sum(map(str.isdigit, text)) * 2 > len(text)


def phone_gate(regions: Sequence[str]) -> str:
    """As few digits as a number of these regions can have, or a plus and the fewest of any country."""
    digit = f"(?:{BETWEEN}[0-9])"
    return rf"\+[(\[ ]{{0,2}}[0-9]{digit}{{{FEWEST - 1}}}|[0-9]{digit}{{{shortest(tuple(regions)) - 1}}}"


@lru_cache
def shortest(regions: tuple[str, ...]) -> int:
    """The fewest digits of a number that is valid in one of the regions and written without its country's code.

    Raises:
        InputError: no such region.
    """
    lengths = [FEWEST + 3]
    for region in regions:
        metadata = PhoneMetadata.metadata_for_region(region)
        if metadata is None or metadata.general_desc is None:
            raise InputError(
                f"region {region!r} is none that phonenumbers knows; give a country's two letters, as in US"
            )
        lengths += metadata.general_desc.possible_length
        if metadata.national_prefix_transform_rule is not None:  # may add an area code to a local number
            lengths += metadata.general_desc.possible_length_local_only
    return max(FEWEST, min(lengths))


def phone_spans(line: str, regions: Sequence[str]) -> list[Span]:
    """Where the phone numbers stand, with their extensions. The slow matcher sees runs of many digits only."""
    fewest = shortest(tuple(regions))
    found: list[Span] = []
    for run in RUN.finditer(line):
        international = "+" in run[0][:3]
        needed = FEWEST if international else fewest
        if _digits(run[0]) >= needed and not _is_plain(line, run) and _digits(DATE.sub("", run[0])) >= needed:
            leniency = Leniency.VALID if international else Leniency.STRICT_GROUPING
            for region in regions or (None,):
                found += _in_run(line, run.span(), region, leniency)
    return merged(found)


def _digits(text: str) -> int:
    return sum(map(str.isdigit, text))


def _is_plain(line: str, run: re.Match[str]) -> bool:
    """Whether a run is more likely a number, or a part of a word or a longer number."""
    return _is_inside(line, run.start()) or (run[0].isdigit() and not _is_mentioned(line, run.start()))


def _is_inside(line: str, start: int) -> bool:
    return PART.search(line, max(0, start - 2), start) is not None


def _is_mentioned(line: str, start: int) -> bool:
    return MENTION.search(line, max(0, start - 48), start) is not None


def _in_run(line: str, run: Span, region: str | None, leniency: int) -> Iterator[Span]:
    """The numbers that begin in one run, chunk by chunk."""
    start, end = run
    while start < end:
        stop = min(start + CHUNK, end)
        offset = max(0, start - BEFORE)
        for match in PhoneNumberMatcher(line[offset : stop + AFTER], region, leniency, TRIES):
            unclosed = match.raw_string[0] in "([" and not set(")]") & set(match.raw_string)
            first, last = offset + match.start + unclosed, offset + match.end
            if start <= first < stop and not _is_part(line, first, match.raw_string):
                yield first, last
                stop = max(stop, last)
        start = stop


def _is_part(line: str, start: int, raw: str) -> bool:
    """Whether a valid number is a part of a decimal, or bare digits that nothing nearby calls a phone number."""
    bare = raw.strip("()[]").isdigit() and not _is_mentioned(line, start)
    return bare or _is_inside(line, start) or raw.startswith("+ ") or DECIMAL.match(raw) is not None


def merged(spans: list[Span]) -> list[Span]:
    """The spans in order, those that overlap as one."""
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start < joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined
