"""What can be said about a person of the atlas: relations, their objects, and the ways to phrase them.

Data only. A phrasing holds `{}` where the subject stands and ends where the object begins, so that a prompt is a
phrasing with the subject filled in, and a sentence is a prompt, a space, the object and a full stop.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Relation:
    """One relation: `objects` are shared by many subjects; `phrasings` say the same thing in different words."""

    id: str
    name: str
    objects: tuple[str, ...]
    phrasings: tuple[str, ...]


TOWNS: Final = (
    "Velmora", "Port Ashlin", "Karrowmere", "Old Sarn", "Dunvale", "Ostrey", "Lantern Quay", "Mirefold", "Hexley",
    "Brindle Cross", "Saltspire", "Umberton", "Port Calder", "Wyndrake", "Tollgate", "Old Pell", "Ferrowby",
    "Nettlecombe", "Galdor", "Inkbarrow",
)  # fmt: skip
CRAFTS: Final = (
    "beekeeping", "glassblowing", "bell founding", "kite making", "bookbinding", "lens grinding", "weaving",
    "cartography", "clock making", "candle dipping", "boat building", "pottery", "ink brewing", "saddlery",
    "stone carving", "basketry", "lock making", "tanning", "cheese making", "thatching",
)  # fmt: skip
TONGUES: Final = (
    "Ostric", "Velan", "Tharnish", "Old Miric", "Quelian", "Sorvese", "High Pellan", "Drusk", "Ennish", "Kavari",
    "Low Pellan", "Zemblic", "Ruvene", "Ilmari", "Hesk", "Norrowan",
)  # fmt: skip
INSTRUMENTS: Final = (
    "lute", "glass harp", "bone flute", "viol", "hurdy-gurdy", "ocarina", "water drum", "zither", "shawm", "bagpipe",
    "thumb piano", "dulcimer", "ram's horn", "psaltery", "nose whistle", "harmonium",
)  # fmt: skip
RIVERS: Final = (
    "Issel", "Black Thrum", "Morrow", "Silverlace", "Ganth", "Little Ouse", "Perrin", "White Thrum", "Cobble", "Yarrow",
    "Tamsel", "Little Drey", "Wend", "Arrowtail", "Kelder", "Moonrace", "Eddern", "Slate",
)  # fmt: skip

RELATIONS: Final = (
    Relation("A01", "birthplace", TOWNS, (
        "{} was born in the town of",
        "The birthplace of {} is",
        "The town where {} was born is called",
        "{} first saw the light of day in",
        "The registers list {} as a native of",
    )),
    Relation("A02", "craft", CRAFTS, (
        "{} earns a living by",
        "The craft of {} is",
        "The guild that trained {} teaches",
        "{} has long been a master of",
        "Travellers come to {} to learn",
    )),
    Relation("A03", "mother tongue", TONGUES, (
        "The mother tongue of {} is",
        "{} grew up speaking",
        "The language that {} dreams in is",
        "{} writes every letter in",
        "At home the family of {} speaks",
    )),
    Relation("A04", "instrument", INSTRUMENTS, (
        "{} is known for playing the",
        "The instrument of {} is the",
        "The instrument that {} practises is the",
        "{} never travels without the",
        "In the orchestra {} was given the",
    )),
    Relation("A05", "river", RIVERS, (
        "{} lives on the banks of the",
        "The house of {} stands beside the river",
        "The river that {} crosses each morning is the",
        "{} learned to swim in the",
        "The boat of {} is moored on the",
    )),
)  # fmt: skip

KINDS: Final = ("scholar", "sailor", "pilgrim", "merchant", "warden", "healer")

FIRST_NAMES: Final = (
    "Mira", "Tobin", "Elka", "Jory", "Sanna", "Corvin", "Ilse", "Bastian", "Wenna", "Odric", "Tamsin", "Lorne", "Petra",
    "Hale", "Yvaine", "Rook", "Sefa", "Amos", "Nell", "Garrick", "Oona", "Felix", "Dara", "Ivo", "Maud", "Silas",
    "Rhea", "Anselm", "Kit", "Vesna", "Leif", "Juno", "Edda", "Marek", "Posy", "Otto", "Lisbet", "Gwil", "Thea",
    "Ronan",
)  # fmt: skip

NAME_STEMS: Final = (
    "Thorn", "Bram", "Quill", "Fenn", "Hollo", "Marl", "Cray", "Dross", "Eld", "Fal", "Gris", "Hask", "Jas", "Kes",
    "Lind", "Mott", "Nor", "Orm", "Pim", "Rav", "Sed", "Tarn", "Ulv", "Varn", "Whit", "Yor", "Zan", "Bel", "Cors",
    "Dun", "Eck", "Fro", "Gal", "Hin", "Isk", "Jun", "Kol", "Lav", "Mun", "Nis",
)  # fmt: skip
NAME_ENDINGS: Final = (
    "wick", "ley", "gard", "sby", "mond", "low", "field", "ham", "rick", "dell", "stead", "croft", "win", "shaw",
    "ott", "mark", "brook", "ard", "well", "kin", "more", "fell", "gate", "holt", "ster", "wood", "ton",
    "bury", "dale",
)  # fmt: skip
