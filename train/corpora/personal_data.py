"""Sentences with and without personal data, made from templates: raw text for students of an existing model.

A template is a line of a file in ``templates``: ``[one|of these]`` and ``{fields}``, which Faker fills in
many countries' ways. The held-out splits have templates and seeds of their own. Beside them stands prose
that has no personal data: the language reference that Python carries.
"""

import random
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any, Literal

from structural_kd.segment import Segmenter
from train.corpora.sentence import Corpus, CorpusError, Sentence

Split = Literal["train", "dev", "test"]

TEMPLATES = Path(__file__).with_name("templates")
SEEDS: dict[Split, int] = {"train": 1, "dev": 2, "test": 3}
SENTENCES: dict[Split, int] = {"train": 20_000, "dev": 1_000, "test": 1_000}
PLAIN_SHARE, PROSE_SHARE = 0.15, 0.1
"""Shares of the texts that are made from templates without personal data, and that are prose."""

LOWER_SHARE, UPPER_SHARE = 0.06, 0.01
"""Shares of the texts in which all letters are small, or capital."""

NOW = datetime(2027, 1, 1)
"""The latest date and time in a text: Faker's own is the clock's, and the texts would change with it."""

LONGEST = 512
"""Tokens of a sentence at most."""

LOCALES = {
    **{"en_US": 12, "en_GB": 4, "en_CA": 2, "en_AU": 2, "en_IN": 1, "en_IE": 1},
    **{"de_DE": 2, "fr_FR": 2, "es_ES": 2, "es_MX": 1, "nl_NL": 3, "pt_BR": 1},
    **{"pl_PL": 1, "sv_SE": 1, "tr_TR": 1},
}
"""Where names, addresses and phones are from, and how often: countries that write in Latin letters.

Italy is not among them: Faker's Italian cities differ from process to process.
"""

PARTS = re.compile(r"\[([^]]*)\]|\{(\w+)\}")
"""A choice or a field of a template; a choice may hold fields."""

COMPANY_WORDS = (
    (
        *("Northern", "Blue", "First", "Golden", "Green", "Coastal", "Modern", "Central", "Bright", "Silver"),
        *("Prime", "Rapid", "Solid", "Urban", "United", "Global", "Royal", "Summit", "Atlantic", "Alpine"),
    ),
    (
        *("Foods", "Software", "Energy", "Insurance", "Airlines", "Motors", "Media", "Bank", "Logistics"),
        *("Electric", "Pharma", "Textiles", "Telecom", "Hotels", "Systems", "Books", "Water", "Steel"),
    ),
)
DATES = ("%d/%m/%Y", "%B %d, %Y", "%d %B %Y", "%B %d", "%Y-%m-%d", "%d.%m.%y")
TIMES = ("%H:%M", "%I:%M %p", "%I %p")
PRODUCTS = (
    *("bicycle", "kettle", "lamp", "ladder", "mattress", "microwave", "monitor", "oven", "radio", "sofa"),
    *("table", "tent", "toaster", "trailer", "umbrella", "vacuum cleaner", "washing machine", "wheelbarrow"),
)


def personal_data() -> Corpus:
    """English sentences in which about three in four texts hold personal data; always the same ones.

    Cut as a server cuts raw text. No sentence of dev or test is in train, and none occurs twice.

    Raises:
        CorpusError: Faker is not installed.
    """
    segmenter = Segmenter("en")
    seen: set[tuple[str, ...]] = set()
    found: dict[Split, tuple[Sentence, ...]] = {}
    for split in ("test", "dev", "train"):
        sentences: list[Sentence] = []
        for text in texts(split):
            for words in _cut(segmenter, text):
                if words not in seen:
                    seen.add(words)
                    sentences.append(Sentence(words))
            if len(sentences) >= SENTENCES[split]:
                break
        found[split] = tuple(sentences[: SENTENCES[split]])
    return Corpus("personal_data", "en", found["train"], found["dev"], found["test"])


def texts(split: Split) -> Iterator[str]:
    """Texts of one split without end, a sentence or a few each; the same for the same version of Faker."""
    generator = random.Random(SEEDS[split])
    values = _values(SEEDS[split])
    personal, plain = (_read(TEMPLATES / f"{kind}_{split}.txt") for kind in ("personal", "plain"))
    prose = _prose(split)
    generator.shuffle(prose)
    while True:
        kind = generator.random()
        if kind < PROSE_SHARE and prose:
            yield prose.pop()
            continue
        template = generator.choice(plain if kind < PROSE_SHARE + PLAIN_SHARE else personal)
        (locale,) = generator.choices(list(values), [LOCALES[name] for name in values])
        text = _filled(template, values[locale], generator)
        letters = generator.random()
        if letters < LOWER_SHARE:
            text = text.lower()
        elif letters < LOWER_SHARE + UPPER_SHARE:
            text = text.upper()
        yield text


def _read(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def _cut(segmenter: Segmenter, text: str) -> Iterator[tuple[str, ...]]:
    segmented = segmenter(text, sentence_tokens=LONGEST)
    for start, end in segmented.sentences:
        yield tuple(segmented.tokens[start:end])


def _prose(split: Split) -> list[str]:
    """Paragraphs of Python's language reference; whole topics are held out."""
    held_out: dict[int, Split] = {8: "dev", 9: "test"}
    paragraphs = []
    for number, name in enumerate(sorted(topics)):
        if held_out.get(number % 10, "train") == split:
            paragraphs += [part for part in re.split(r"\n\s*\n", topics[name]) if _is_prose(part)]
    return [" ".join(part.split()) for part in paragraphs]


def _is_prose(paragraph: str) -> bool:
    """Whether it is a sentence or more, not a heading, a list, a program or a grammar."""
    return (
        paragraph[:1].isupper()
        and paragraph.rstrip().endswith(".")
        and not re.search(r"::=|>>>|\*\*\*|===|---|\n {2}", paragraph)
    )


def _filled(template: str, values: "_Values", generator: random.Random) -> str:
    """A template with its choices made and its fields filled."""
    values.begin()

    def fill(match: re.Match[str]) -> str:
        choices, field = match.groups()
        return values.of(field) if field else PARTS.sub(fill, generator.choice(choices.split("|")))

    return PARTS.sub(fill, template)


def _values(seed: int) -> dict[str, "_Values"]:
    """Values by locale."""
    try:
        from faker import Faker
    except ModuleNotFoundError:
        raise CorpusError("personal_data", None, "Faker is missing; install it: pip install faker") from None
    english = Faker("en_US")
    english.seed_instance(seed)
    values = {}
    for number, locale in enumerate(LOCALES):
        faker = Faker(locale)
        faker.seed_instance(1000 * seed + number)
        values[locale] = _Values(locale, faker, english)
    return values


class _Values:
    """Values of fields in the way of one country; what follows a name may be made from it."""

    def __init__(self, locale: str, faker: Any, english: Any) -> None:
        self.locale, self.faker, self.english = locale, faker, english
        self.name = ("", "")

    def begin(self) -> None:
        """Begin another text."""
        self.name = ("", "")

    def of(self, field: str) -> str:
        """A value; KeyError for a field that there is not."""
        return " ".join(FIELDS[field](self).split())

    def one(self, *choices: str) -> str:
        """One of some patterns, its ``#`` filled with digits, ``?`` with capitals, ``%`` with 1 to 9."""
        pattern: str = self.faker.random_element(choices)
        return str(self.faker.bothify(pattern, letters="ABCDEFGHJKLMNPRSTUVWXYZ"))

    def number(self, least: int, most: int) -> int:
        return int(self.faker.random_int(least, most))

    def chance(self, percent: int) -> bool:
        return self.number(1, 100) <= percent

    def has(self, provider: str) -> bool:
        return hasattr(self.faker, provider)


def _given(values: _Values) -> str:
    given = str(values.faker.first_name())
    values.name = (given, values.name[1])
    return given


def _surname(values: _Values) -> str:
    surname = str(values.faker.last_name())
    values.name = (values.name[0], surname)
    return surname


def _name(values: _Values) -> str:
    middle = values.one(" ?.") if values.chance(4) else ""
    return f"{_given(values)}{middle} {_surname(values)}"


def _handle(values: _Values, separators: Sequence[str]) -> str:
    """The name in the text, or another one, as it stands in addresses: anna.cole, acole7."""
    given, surname = (part or other for part, other in zip(values.name, _other_name(values), strict=True))
    given, surname = _ascii(given), _ascii(surname)
    if values.chance(30):
        given = given[:1]
    number = values.one("", "", "%", "##", "19##")
    return f"{given}{values.one(*separators)}{surname}{number}"


def _other_name(values: _Values) -> tuple[str, str]:
    return str(values.faker.first_name()), str(values.faker.last_name())


def _ascii(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii").lower()
    return re.sub("[^a-z]", "", plain) or "me"


def _email(values: _Values) -> str:
    own = values.chance(50)
    domain = values.faker.free_email_domain() if own else values.english.domain_name()
    if values.chance(15):
        return str(values.english.ascii_safe_email())
    return f"{_handle(values, (*'._-', ''))}@{domain}"


def _url(values: _Values) -> str:
    handle = _handle(values, ("-", "", "."))
    site = values.one("linkedin.com/in/", "github.com/", "www.facebook.com/", "instagram.com/", "own", "own")
    if site == "own":
        site = f"www.{handle}.{values.one('com', 'org', 'net', 'me', 'blog')}/"
        handle = values.one("", "photos", "about", "cv.html", "blog/20##")
    return (
        values.one("https://", "https://", "http://") + site.replace("www.", values.one("www.", "")) + handle
    )


def _phone(values: _Values) -> str:
    """With a sign or gaps, as people write it; a mere row of digits could be anything."""
    while values.locale != "en_US":
        phone = str(values.faker.phone_number())
        if not phone.isdigit():
            return phone
        if values.chance(30):
            return f"+{values.number(30, 99)} {phone.lstrip('0')}"
    return values.one("(%##) %##-####", "%##-%##-####", "+1 %## %## ####", "%##.%##.####", "%## %## ####")


def _unit(values: _Values) -> str:
    if values.has("secondary_address") and values.chance(50):
        return str(values.faker.secondary_address())
    return values.one("Apt. %#", "Apt %##", "Apartment %#?", "Suite %##", "Unit %", "Flat %#", "Flat %?")


def _state(values: _Values) -> str:
    own = values.faker if values.locale in ("en_CA", "en_AU") else values.english
    return str(
        own.state_abbr() if values.chance(30) and values.has("state_abbr") else own.administrative_unit()
    )


def _address(values: _Values) -> str:
    v = {name: values.of(name) for name in ("building", "street", "city", "state", "zip", "unit")}
    unit = f", {v['unit']}" if values.chance(30) else ""
    if values.locale.startswith("en"):
        return f"{v['building']} {v['street']}{unit}, {v['city']}, {v['state']} {v['zip']}"
    return f"{v['street']} {v['building']}{unit}, {v['zip']} {v['city']}"


def _company(values: _Values) -> str:
    """A name that is made of no family's name."""
    first, second = (values.faker.random_element(words) for words in COMPANY_WORDS)
    return f"{first} {second}{values.one('', '', '', ' Ltd', ' Inc.', ' Group')}"


FIELDS: dict[str, Callable[[_Values], str]] = {
    "given": _given,
    "surname": _surname,
    "name": _name,
    "email": _email,
    "phone": _phone,
    "url": _url,
    "building": lambda v: str(v.faker.building_number()) if v.chance(40) else v.one("%", "%#", "%##", "%#?"),
    "street": lambda v: str(v.faker.street_name()),
    "unit": _unit,
    "city": lambda v: str(v.faker.city()),
    "state": _state,
    "zip": lambda v: str(v.faker.postcode()),
    "address": _address,
    "account": lambda v: (
        str(v.faker.iban()) if v.chance(30) else v.one("########", "##########", "############")
    ),
    "routing": lambda v: str(v.faker.aba()),
    "tax_id": lambda v: v.one("%#-#######", "%#-#######", "#########"),
    "gov_id": lambda v: v.one("########?", "??######?", "??#######", "###########"),
    "passport": lambda v: v.one("?########", "#########", "??#######"),
    "licence": lambda v: v.one("?#######", "?############", "?########", "########"),
    "card": lambda v: " ".join(re.findall(".{1,4}", str(v.faker.credit_card_number("visa16")))),
    "ip": lambda v: str(v.faker.ipv4()),
    "order": lambda v: v.one("%#######", "%####", "??-#####", "#%####-##", "?####"),
    "company": _company,
    "product": lambda v: v.one(*PRODUCTS),
    "job": lambda v: str(v.english.job()).split(",")[0].split("/")[0].lower(),
    "weekday": lambda v: str(v.english.day_of_week()),
    "month": lambda v: str(v.english.month_name()),
    "year": lambda v: str(v.number(1985, 2027)),
    "date": lambda v: str(v.english.date(v.faker.random_element(DATES), NOW)),
    "time": lambda v: str(v.english.time(v.faker.random_element(TIMES), NOW)),
    "amount": lambda v: v.one("$%#", "$%##.##", "€%##", "%### euros", "$%,###.##", "£%#.##"),
    "number": lambda v: v.one("%#", "%##", "%,###", "%#,###", "%###"),
    "small": lambda v: v.one("%", "%", "1#", "2#", "%#"),
    "percent": lambda v: v.one("%", "%.#", "1#", "%#"),
}
"""How the value of a field is made."""


MADE_TEXTS: dict[str, Callable[[], Corpus]] = {"personal_data": personal_data}
"""Raw text that a recipe names under ``text`` and that no file holds."""
