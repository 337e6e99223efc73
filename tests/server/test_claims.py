"""Who keeps which edit: verdicts on claims that meet, under each policy."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collabedit.common.blinding import Claim
from collabedit.server.claims import (
    OUT,
    Decision,
    Kind,
    Merged,
    Party,
    Rule,
    Verdict,
    by_slot,
    decided,
    judge,
    judge_late,
    overwritten,
)

POLICIES = ("first-come", "last-come", "priority", "manual")
NAMES = ("arosa", "bern", "chur", "davos")


def claim(slot: str, fact: str) -> Claim:
    """A claim whose blinded names are easy to read."""
    return Claim(slot.encode(), (slot + fact).encode())


MOTHER = claim("danielle", "french"), claim("danielle", "english"), claim("danielle", "dutch")
FRENCH, ENGLISH, DUTCH = MOTHER
ALONE = claim("vinson", "antarctica")

claims = st.builds(claim, st.sampled_from("stuv"), st.sampled_from("xyz"))
one_each = st.lists(claims, max_size=6, unique_by=lambda each: each.slot).map(tuple)
several = st.lists(claims, max_size=6).map(tuple)


def parties_of(each_ones) -> st.SearchStrategy[tuple[Party, ...]]:
    """Parties in some receipt order, each with claims of its own."""
    everyone = st.permutations(NAMES).flatmap(lambda names: st.integers(0, len(names)).map(lambda n: names[:n]))
    return everyone.flatmap(lambda names: st.tuples(*(st.builds(Party, st.just(name), each_ones) for name in names)))


rules = st.builds(Rule, st.sampled_from(POLICIES), st.permutations(NAMES).map(lambda names: tuple(names[:2])))


def claimants_of(parties: tuple[Party, ...]) -> dict[bytes, dict[str, frozenset[bytes]]]:
    """What each party claims, by slot."""
    found: dict[bytes, dict[str, frozenset[bytes]]] = {}
    for party in parties:
        for slot, facts in by_slot(party.claims).items():
            found.setdefault(slot, {})[party.client] = facts
    return found


@given(parties_of(one_each), rules)
def test_one_fact_of_each_slot_is_written(parties, rule):
    """What is not judged out has one fact a slot and one writer; nothing where an admin has yet to decide."""
    verdicts = judge(parties, rule)
    out = {(each.client, each.claim) for each in verdicts if each.kind in OUT}
    written = [(c, each.client) for each in parties for c in each.claims if (each.client, c) not in out]
    assert len({c.slot for c, _ in written}) == len(written)
    undecided = {each.claim.slot for each in verdicts if each.kind is Kind.UNDECIDED}
    assert {c.slot for c, _ in written} | undecided == {c.slot for each in parties for c in each.claims}


@given(parties_of(one_each), rules)
def test_a_contradiction_has_one_winner_and_no_others_are_invented(parties, rule):
    """Exactly one KEEP where facts differ, none elsewhere; no verdict for a slot of one party."""
    by_kind: dict[bytes, Counter] = {}
    for each in judge(parties, rule):
        by_kind.setdefault(each.claim.slot, Counter())[each.kind] += 1
    for slot, claimants in claimants_of(parties).items():
        kinds, facts = by_kind.get(slot, Counter()), {fact for each in claimants.values() for fact in each}
        if len(claimants) == 1:
            assert not kinds
        elif len(facts) == 1:
            assert kinds == {Kind.DUPLICATE: len(claimants) - 1}
        elif rule.policy == "manual":
            assert kinds == {Kind.UNDECIDED: len(claimants)}
        else:
            assert kinds[Kind.KEEP] == 1
            assert kinds[Kind.YIELD] >= 1
            assert kinds.total() == len(claimants)


@given(parties_of(several), rules, st.randoms())
def test_the_order_of_a_partys_claims_means_nothing(parties, rule, random):
    """A batch is a set of edits: only the order in which parties came counts."""
    mixed = [Party(each.client, tuple(random.sample(each.claims, len(each.claims)))) for each in parties]
    assert judge(mixed, rule) == judge(parties, rule)


@given(parties_of(one_each), st.permutations(NAMES).map(tuple), st.randoms())
def test_where_priority_ranks_everybody_receipt_means_nothing(parties, priority, random):
    """Whoever came first, the same party keeps a contradicted slot."""
    mixed = tuple(random.sample(parties, len(parties)))
    contested = {slot for slot, each in claimants_of(parties).items() if len(set(each.values())) > 1}
    first, second = (
        {
            each
            for each in judge(order, Rule("priority", priority))
            if each.claim.slot in contested and each.kind is kind
        }
        for order, kind in ((parties, Kind.YIELD), (mixed, Kind.YIELD))
    )
    assert first == second


@given(parties_of(several), rules)
def test_each_claim_has_one_verdict_at_most(parties, rule):
    """Also where a party claims several objects for a slot."""
    told = Counter((each.client, each.claim) for each in judge(parties, rule))
    assert set(told.values()) <= {1}
    assert set(told) <= {(each.client, c) for each in parties for c in each.claims}


@given(parties_of(several), rules)
def test_without_overlaps_only_contradictions_are_judged(parties, rule):
    """After a failure there is nothing to tell parties that agree; all else stays as it is."""
    every = judge(parties, rule)
    contested = {each.claim.slot for each in every if each.kind is not Kind.DUPLICATE}
    assert judge(parties, rule, overlaps=False) == tuple(each for each in every if each.claim.slot in contested)


@pytest.mark.parametrize(
    ("policy", "winner"), [("first-come", "arosa"), ("last-come", "chur"), ("priority", "bern"), ("manual", None)]
)
def test_the_policy_picks_the_winner(policy, winner):
    """Receipt order, its end, the operator's list, or nobody yet."""
    parties = [Party("arosa", (FRENCH, ALONE)), Party("bern", (ENGLISH,)), Party("chur", (DUTCH,))]
    verdicts = judge(parties, Rule(policy, ("davos", "bern")))
    kinds = {each.client: each.kind for each in verdicts}
    if winner is None:
        assert set(kinds.values()) == {Kind.UNDECIDED}
    else:
        assert {client for client, kind in kinds.items() if kind is Kind.KEEP} == {winner}
    assert {each.policy for each in verdicts} == {policy}


def test_who_says_what_the_winner_says_is_a_duplicate():
    """It does not contradict the winner, and need not write the fact again."""
    parties = [Party("arosa", (FRENCH,)), Party("bern", (ENGLISH,)), Party("chur", (FRENCH,))]
    kinds = {each.client: each.kind for each in judge(parties, Rule())}
    assert kinds == {"arosa": Kind.KEEP, "bern": Kind.YIELD, "chur": Kind.DUPLICATE}


def test_who_claims_everything_that_the_others_do_agrees_with_them():
    """A set of several labels for a slot is no contradiction to one of them."""
    parties = [Party("arosa", (FRENCH,)), Party("bern", (ENGLISH, FRENCH))]
    assert [(each.client, each.kind) for each in judge(parties, Rule())] == [("arosa", Kind.DUPLICATE)]


DECIDED = Decision(FRENCH.slot, "bern", (ENGLISH.fact,))


@pytest.mark.parametrize(
    ("parties", "kinds"),
    [
        ({"arosa": FRENCH, "bern": ENGLISH}, {"arosa": "yield", "bern": "keep"}),
        ({"arosa": FRENCH, "bern": DUTCH}, {"arosa": "yield", "bern": "keep"}),  # it may have changed its mind
        ({"bern": ENGLISH}, {}),
        ({"arosa": FRENCH}, {"arosa": "yield"}),
        ({"arosa": ENGLISH}, {}),
        ({"arosa": ENGLISH, "chur": ENGLISH}, {"chur": "duplicate"}),
        ({"arosa": ENGLISH, "chur": FRENCH}, {"arosa": "keep", "chur": "yield"}),
        ({"arosa": FRENCH, "bern": ENGLISH, "chur": ENGLISH}, {"arosa": "yield", "bern": "keep", "chur": "duplicate"}),
    ],
)
def test_a_decision_holds_in_later_rounds(parties, kinds):
    """As if the policy had picked that client; where it is away, its fact."""
    given_ = [Party(client, (each,)) for client, each in parties.items()]
    verdicts = judge(given_, Rule("manual", decisions={FRENCH.slot: DECIDED}))
    assert {each.client: each.kind.value for each in verdicts} == kinds
    first = judge(given_, Rule("first-come", decisions={FRENCH.slot: DECIDED}))
    assert first == judge(given_, Rule("first-come")), "an admin decides where the policy says so"


LATE = [
    ("another fact", FRENCH, ENGLISH, False, "first-come", "yield"),
    ("another fact, whatever the policy", FRENCH, ENGLISH, False, "last-come", "yield"),
    ("the same fact", FRENCH, FRENCH, False, "last-come", "duplicate"),
    ("another slot", FRENCH, ALONE, False, "first-come", None),
    ("the others' edit is out", FRENCH, ENGLISH, True, "first-come", None),
    ("an admin decides", FRENCH, ENGLISH, False, "manual", "undecided"),
    ("an admin has yet to decide", FRENCH, ENGLISH, True, "manual", "undecided"),
    ("the same fact, and an admin decides", FRENCH, FRENCH, False, "manual", "duplicate"),
]


@pytest.mark.parametrize(("_", "there", "comes", "is_out", "policy", "kind"), LATE, ids=[each[0] for each in LATE])
def test_who_comes_late_yields(_, there, comes, is_out, policy, kind):
    """What was settled is not judged again."""
    out = {("arosa", there)} if is_out else set()
    verdicts = judge_late([Party("arosa", (there,))], out, Party("bern", (comes,)), Rule(policy, ("bern",)))
    assert [(each.client, each.kind.value) for each in verdicts] == ([("bern", kind)] if kind else [])


@given(parties_of(several), several, rules)
def test_a_late_party_never_writes_beside_another(parties, late, rule):
    """No verdict but its own; what is left of its claims is in nobody's slot, unless with the policy's blessing."""
    out = {(each.client, each.claim) for each in judge(parties, rule) if each.kind in OUT}
    verdicts = judge_late(parties, out, Party("zug", late), rule)
    assert {each.client for each in verdicts} <= {"zug"}
    held = {c.slot for each in parties for c in each.claims if (each.client, c) not in out}
    assert not held & {c.slot for c in set(late) - {each.claim for each in verdicts}}


def test_a_decision_reaches_everybody_who_waits():
    """The one that is kept, those that contradict it, and who says the same; a second time it changes nothing."""
    waiting = [
        ("arosa", FRENCH.fact, Kind.UNDECIDED),
        ("bern", ENGLISH.fact, Kind.UNDECIDED),
        ("chur", ENGLISH.fact, Kind.UNDECIDED),
        ("davos", DUTCH.fact, None),
    ]
    verdicts = decided(waiting, DECIDED)
    kinds = {each.client: each.kind for each in verdicts}
    assert kinds == {"arosa": Kind.YIELD, "bern": Kind.KEEP, "chur": Kind.DUPLICATE}
    after = [(client, fact, kinds.get(client, was)) for client, fact, was in waiting]
    assert decided(after, DECIDED) == ()
    other = decided(after, Decision(FRENCH.slot, "arosa", (FRENCH.fact,)))
    assert {each.client: each.kind for each in other} == {
        "arosa": Kind.KEEP, "bern": Kind.YIELD, "chur": Kind.YIELD,
    }  # fmt: skip


def test_a_later_round_takes_the_place_of_an_earlier_one():
    """Its owner is told, and everybody who said the same; not who was told before, nor the writer itself."""
    history = [
        Merged(1, "arosa", DUTCH),
        Merged(2, "bern", FRENCH),
        Merged(3, "chur", FRENCH),
        Merged(3, "arosa", ALONE),
    ]
    new = [Merged(4, "davos", ENGLISH), Merged(4, "davos", ALONE)]
    told = [Verdict(client, FRENCH, Kind.OVERWRITTEN, "last-come") for client in ("bern", "chur")]
    assert list(overwritten(history, new)) == told
    assert overwritten(history, [Merged(4, "chur", ENGLISH)]) == (told[0],), "its own it knows of"
    assert overwritten(history, [Merged(4, "davos", FRENCH)]) == ()


@given(st.lists(st.builds(Merged, st.integers(1, 4), st.sampled_from(NAMES), claims)), several)
def test_who_is_overwritten_had_merged_that_claim(history, new):
    """The verdict is about a claim of an earlier round, of another party, with another object; in whatever order."""
    verdicts = overwritten(history, [Merged(5, "zug", each) for each in new])
    facts = by_slot(new)
    for each in verdicts:
        assert (each.client, each.claim) in {(one.client, one.claim) for one in history}
        assert each.claim.fact not in facts[each.claim.slot]
    assert set(verdicts) == set(overwritten(reversed(history), [Merged(5, "zug", each) for each in new]))
