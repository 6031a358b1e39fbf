"""Harvests the names that users give of themselves and of others in their messages.

A name is taken where the words around it say that it is one: an introduction, a title, a greeting, a signature, or a
relative. It is at most three capitalised words, none of them a common word, a language, a nation, a day, a technical
term or an assistant. A name that is a common word too (Mark, Will, Grace) is taken, and replaced where it cannot be the
word: capitalised, and not at the start of a sentence or a point.
"""

import itertools
import re
from collections.abc import Iterable

HANDLE = re.compile(r"(?<![\w/.@])@([A-Za-z_][\w-]{1,38})(?![\w(/]|\.\w)")
AT_WORDS = """
    property dataclass staticmethod classmethod override media import param return returns author app angular types
    decorator decorators pytest fixture test tests component injectable input output bean autowired click mentions
    here everyone channel mixin include keyframes font-face supports contextmanager cache abstractmethod
"""
NOT_HANDLES = frozenset(AT_WORDS.split())

CAPITAL = r"[^\W\d_a-zß-öø-ÿ][^\W\d_]+(?:['’-][^\W\d_]+)*"
INITIAL = r"[A-Z]\."
NAME = rf"({CAPITAL}(?: (?:{INITIAL} )?{CAPITAL}){{0,2}})"
SPOKEN = r"([^\W\d_]{2,}(?:['’-][^\W\d_]+)*(?: (?:[A-Z]\. )?[A-Z][^\W\d_]+){0,2})"
END = r"(?=\s*(?:[,.!?;:)\n]|$|and\b|from\b|here\b|but\b|the\b))"
PATTERNS = tuple(
    re.compile(pattern, re.MULTILINE)
    for pattern in (
        rf"(?i:\bmy (?:full |first |last |real )?name(?:[’']s| is| ?:)|\bname[’']s) {SPOKEN}",
        rf"(?i:\b(?:i[’']?m|i am)) {NAME}{END}",
        rf"(?i:\bthis is) {NAME}(?= (?:here|from|speaking|again)\b)",
        rf"(?i:\bcall(?:ed)? me|\b(?:user|author|writer|student|person|client)(?:[’']?s)? name is) {NAME}",
        r"(?i:\b(?:user|person|student|man|woman|boy|girl|guy|someone|somebody|author|client|colleague|child|kid)"
        rf",? (?:is )?(?:named|called|known as)) {NAME}",
        rf"(?i:\b(?:me llamo|mi nombre es|je m[’']appelle|mon nom est|ich hei(?:ß|ss)e|mein name ist|mi chiamo"
        rf"|meu nome é|me chamo)) {NAME}",
        rf"\b(?:Mr|Mrs|Ms|Mx|Miss|Dr|Prof|Professor|Doctor|Sir|Herr|Frau|Señora?|Monsieur|Madame)\.? {NAME}",
        rf"^[ \t]*(?i:dear|hi|hello|hey) {NAME}[ \t]*(?:[,!.:]|$)",
        r"(?i:\b(?:regards|sincerely|faithfully|cheers|best wishes|thank you|thanks|yours truly|best))"
        rf"[,!.]?[ \t]*\n\s{{0,8}}{NAME}[ \t]*$",
        r"(?i:\bmy (?:wife|husband|partner|girlfriend|boyfriend|fianc[ée]+|son|daughter|brother|sister|mother|father"
        r"|mom|mum|dad|boss|manager|friend|colleague|coworker|roommate|teacher|neighbou?r|cousin|uncle|aunt|cat|dog)"
        rf"(?:,|[’']s name is| is (?:named|called)| named| called)?) {NAME}",
    )
)

# Words that stand where a name may stand, and are none.
WORDS = """
    a an the and but not so very just also here there this that these those it me you he she we they who what why
    how when where yes no ok okay please thanks sorry sure well now then later back maybe always never still all any
    some one two three new good great fine happy sad sick tired ready done able unable trying going looking using
    working writing making building creating learning getting having doing asking wondering thinking planning
    interested confused stuck lost curious afraid glad unsure aware currently really only too from in on at to of
    for with about sir madam ma'am team everyone everybody folks friends friend guys ladies gentlemen colleague
    customer client user users student students teacher professor doctor hiring manager recruiter committee editor
    reviewer admin administrator support service sales human resources department assistant chatbot bot model ai agi
    llm gpt chatgpt chat claude gemini bard copilot llama siri alexa openai anthropic google microsoft apple amazon meta
    facebook github python java javascript typescript rust go golang ruby perl php swift kotlin scala matlab julia
    bash linux windows macos android ios docker kubernetes react angular vue django flask pandas numpy excel word
    powerpoint latex sql mysql postgres sqlite mongodb redis aws azure gcp html css json xml yaml markdown git
    svelte node unity blender apa mla ieee english american british french german spanish italian portuguese dutch
    russian ukrainian polish chinese japanese korean indian pakistani arab arabic hebrew turkish greek persian
    iranian vietnamese thai indonesian filipino mexican brazilian canadian australian african european asian latin
    swedish norwegian danish finnish irish scottish welsh swiss austrian belgian czech hungarian romanian christian
    muslim jewish hindu buddhist catholic atheist monday tuesday wednesday thursday friday saturday sunday january
    february march july september october november december today tomorrow yesterday christmas easter god lord world
    earth santa mom mum dad mother father captain king queen prince princess junior senior dev developer engineer
    designer analyst scientist researcher lawyer nurse writer author beginner expert freelancer important urgent
    note step question answer example code data short long brief concise detailed formal casual
"""
NOT_NAMES = frozenset(WORDS.split())
COMMON_NAMES = """
    mark will grace may hope joy faith rich art jack rose bill frank max summer autumn april june august dawn drew
    chase grant spring winter sky star ray rob pat sue gene guy hunter mason carter cooper parker taylor baker page
    young brown white black green gray grey stone field wood woods banks rivers price sharp strong wise bond case
    cash chance clay cliff dale dean duke earl eve ford glen harmony heath iris ivy jade jasmine jean jewel justice
    lane lee lily link major melody miles miller olive paige penny pepper pierce porter reed river robin sandy sage
    skip sterling van vernon victor violet ward wade west wren
"""
COMMON = frozenset(COMMON_NAMES.split())


def harvest(messages: Iterable[str]) -> set[str]:
    """The names, whole and in parts."""
    names: set[str] = set()
    for message in messages:
        for pattern in PATTERNS:
            for match in pattern.finditer(message):
                names |= _parts(match[1])
    return names


def _parts(said: str) -> set[str]:
    """A name's words up to the first that is none, alone and together."""
    words = [
        word[:1].upper() + word[1:]
        for word in itertools.takewhile(_may_be_name, said.removesuffix("'s").removesuffix("’s").split())
    ]
    long = {word for word in words if len(word) > 2 and not word.endswith(".")}
    return long | ({" ".join(words)} if words and len(words[0]) > 1 else set())


def _may_be_name(word: str) -> bool:
    acronym = word.isupper() and 2 <= len(word) <= 4 and not word.endswith(".")
    return word.lower() not in NOT_NAMES and not acronym


def replacing(names: Iterable[str]) -> list[re.Pattern[str]]:
    """What finds the names as whole words, longer ones first."""
    ordered = sorted(names, key=lambda name: (-len(name), name))
    return [re.compile(_inside_a_sentence(name) + rf"{re.escape(name)}(?!\w)") for name in ordered]


def _inside_a_sentence(name: str) -> str:
    """What must stand before a name: a lower-case word where the name is a common word too."""
    return r"(?<=[a-zß-öø-ÿ,] )" if name.lower() in COMMON else r"(?<![\w\[])"
