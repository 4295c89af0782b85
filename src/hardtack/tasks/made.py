"""The made task is a sentiment task that the project generates itself: a demo needs nobody's data.

Every sentence comes from a template over one domain (a film, a meal, a phone ...). Several words carry
sentiment, and negation, concession and contrast decide which of them counts, so that counting words does not
solve it. Most sentiment words of validation and of test are not in training: a model has to know them.
The grammar is frozen by a hash in the tests, because numbers measured on it are compared over releases.
"""

import re
from collections.abc import Mapping, Sequence

from hardtack.errors import InputError
from hardtack.runs import key
from hardtack.tasks.task import Table, Task

LABELS = ("negative", "positive")
HELD_OUT_SHARE = 60  # percent of the sentiment words of validation and test that training never shows

# Groups of near synonyms, one polarity each: words of sentences, then rarer ones that only attacks use. Of
# every four words of sentences the first two are for training, the third for validation, the fourth for test.
GOOD = (
    ("excellent superb exceptional terrific splendid outstanding magnificent marvelous", "stellar peerless"),
    ("wonderful fantastic glorious fabulous amazing awesome phenomenal sensational", "stupendous incredible"),
    ("delightful charming endearing enchanting lovely gorgeous captivating beguiling", "winsome adorable"),
    ("brilliant stunning dazzling spectacular impressive remarkable striking astonishing", "resplendent"),
    ("perfect flawless impeccable faultless", "immaculate unblemished"),
    ("enjoyable pleasant likable agreeable", "congenial pleasing"),
    ("satisfying rewarding gratifying fulfilling", "heartening uplifting"),
    ("great good commendable admirable nice fine laudable praiseworthy", "estimable worthy"),
)
BAD = (
    ("awful terrible ghastly horrible appalling dreadful horrendous abysmal", "dire woeful abominable"),
    ("bad poor shoddy rotten lousy inferior crummy substandard", "trashy deficient"),
    ("disappointing frustrating underwhelming disheartening", "lamentable unsatisfying"),
    ("dull boring insipid dreary tedious monotonous humdrum drab", "stodgy turgid"),
    ("annoying irritating irksome maddening", "vexing galling infuriating"),
    ("pathetic miserable deplorable wretched", "pitiful sorry"),
    ("disgusting revolting repellent vile", "nauseating loathsome repulsive"),
    ("useless worthless futile hopeless", "pointless fruitless"),
)

# What is judged: names for the thing, and parts of it.
DOMAINS = (
    (("film", "movie", "picture"), ("plot", "cast", "ending", "soundtrack")),
    (("meal", "dinner", "supper"), ("soup", "dessert", "salad", "sauce")),
    (("phone", "handset", "smartphone"), ("screen", "battery", "camera", "speaker")),
    (("hotel", "inn", "lodge"), ("room", "breakfast", "lobby", "bed")),
    (("book", "novel", "paperback"), ("opening", "story", "dialogue", "chapter")),
    (("concert", "show", "gig"), ("singer", "stage", "band", "programme")),
    (("class", "course", "workshop"), ("teacher", "schedule", "textbook", "exam")),
    (("car", "vehicle", "automobile"), ("engine", "seat", "dashboard", "heater")),
)

# Neutral words with near synonyms; they give substitution attacks something harmless to try.
FILLERS = {
    "very": ("really", "very", "truly"),
    "wholly": ("completely", "totally", "entirely", "utterly"),
    "friend": ("friend", "neighbour", "colleague", "cousin"),
    "found": ("found", "considered", "thought"),
    "overall": ("overall", "altogether", "generally"),
    "early": ("initially", "originally"),
}

# What somebody does who liked it, or did not.
AGAIN = (
    ("and we would not do it again", "and we would not have more of it"),
    ("and we would do it all again", "and we would have more of it"),
)

# {g}: a word of the sentence's own polarity; {o}: one of the other; {thing}, {part}, {part2}: of one domain.
# Punctuation stands alone, as in other tokenised sentiment data, so that every attack finds the same words.
TEMPLATES = (
    "the {thing} was {g} and {g} and the {part} {very} {g}",
    "{overall} we {found} the {thing} {g} and {g} , {again}",
    "my {friend} {found} the {part} {g} , the {part2} {g} and both {very} {g}",
    "not only was the {thing} {g} , the {part} was {g} and {g}",
    "never before was a {thing} so {g} and a {part} so {g}",
    "the {part} was {o} , but the {thing} was {g} , {g} and {very} {g}",
    "although the {part} was {o} , we {found} the {thing} {g} , {g} and {g}",
    "the {thing} was {g} , {g} and {g} , even though the {part} was {o}",
    "the {thing} was {g} , {g} and {g} , never mind the {o} {part}",
    "{early} the {thing} looked {o} and {o} , yet it was {very} {g} and {g}",
    "we expected a {o} {thing} , but were {wholly} wrong : it was {g} and {g}",
    "my {friend} called the {part} {o} and {o} , but we {found} it {g} and {g}",
    "the {thing} was not {o} at all , and the {part} was {g} and {g}",
    "nobody could call this {thing} {o} or {o} , and the {part} was {g}",
    "the {thing} was never {o} , never {o} and never {o}",
    "far from {o} , {o} or {o} , the {thing} had a {g} {part}",
    "the {part} was {o} and {o} , but the {thing} was {very} {g} , {again}",
    "there was nothing {o} about the {thing} or the {part} , {again}",
)


PLACES = {"train": (0, 1), "validation": (2,), "test": (3,)}  # of every four words of a group


def words(groups: tuple[tuple[str, str], ...], split: str) -> tuple[str, ...]:
    """Return the sentiment words of these groups that are for one split."""
    ordered = [(place % 4, word) for common, _ in groups for place, word in enumerate(common.split())]
    return tuple(word for place, word in ordered if place in PLACES[split])


def _neighbours() -> dict[str, list[str]]:
    sentiment = (f"{common} {rare}".split() for common, rare in (*GOOD, *BAD))
    groups = (*sentiment, *FILLERS.values(), *(things for things, _ in DOMAINS))
    return {word: [other for other in group if other != word] for group in groups for word in group}


# Word -> near words, for substitution attacks: a swap stays among near synonyms, so the label stays true.
NEIGHBOURS: Mapping[str, Sequence[str]] = _neighbours()


def _sentence(label: int, split: str, row: int, *, seed: int) -> str:
    """Make one sentence; every choice in it is a hash of (seed, split, row, number of the choice)."""
    choices = iter(range(1000))

    def choose(options: tuple[str, ...]) -> str:
        return options[key(seed, "made", step=next(choices), example=f"{split}/{row}") % len(options)]

    groups = (GOOD, BAD) if label == 1 else (BAD, GOOD)
    things, parts = DOMAINS[key(seed, "made/domain", example=f"{split}/{row}") % len(DOMAINS)]
    used: set[str] = set()

    def fill(slot: re.Match[str]) -> str:
        name = slot[1].rstrip("2")
        if name in FILLERS:
            return choose(FILLERS[name])
        if name == "again":
            return choose(AGAIN[label])
        if name in ("g", "o"):
            draw = key(seed, "made/held", step=slot.start(), example=f"{split}/{row}") % 100
            options = words(groups["go".index(name)], split if draw < HELD_OUT_SHARE else "train")
        else:
            options = things if name == "thing" else parts
        word = choose(tuple(option for option in options if option not in used))
        used.add(word)
        return word

    text = re.sub(r"{(\w+)}", fill, choose(TEMPLATES))
    return re.sub(r"\ba (?=[aeio]|un)", "an ", text)


def made_task(train: int = 480, validation: int = 200, test: int = 200, *, seed: int = 0) -> Task:
    """Make the generated sentiment task: both labels equally often in every split, no sentence twice.

    Args:
        train: sentences for training.
        validation: sentences for every choice; most of their sentiment words are not in training.
        test: sentences for the final rows; most of their sentiment words are in neither of the others.
        seed: another seed gives other sentences of the same grammar.
    """
    splits, seen = {}, set()
    for split, size in (("train", train), ("validation", validation), ("test", test)):
        if not 2 <= size <= 100_000:
            raise InputError(f"{size} sentences for split {split!r} of the made task; allowed: 2 to 100000")
        texts, row = [], 0
        while len(texts) < size:
            text = _sentence(len(texts) % 2, split, row, seed=seed)
            row += 1
            if text not in seen:
                seen.add(text)
                texts.append((text,))
        splits[split] = Table.of(texts, [k % 2 for k in range(size)])
    return Task("made", LABELS, splits)
