"""Rank-1 and verification by hand and against naive loops."""

import itertools
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from faceattr_jax.data.source import Table
from faceattr_jax.errors import UserError
from faceattr_jax.evaluation import identity

# On a line: people 0 and 1 in pairs, one picture of 2 nearer to 1 than to the other of 2.
LINE = np.array([0.0, 1.0, 10.0, 11.0, 12.5, 20.0])[:, None]
WHO = np.array([0, 0, 1, 1, 2, 2])


def distances(vectors):
    return np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)


def test_rank1_by_hand():
    assert identity.rank1(distances(LINE), WHO) == 5 / 6
    assert identity.rank1(distances(LINE[:4]), WHO[:4]) == 1


def test_auc_by_hand():
    # Pairs of one person: 1, 1, 7.5. Of two, two are below 7.5: 1.5 and 2.5.
    assert identity.auc(distances(LINE), WHO) == pytest.approx((12 + 12 + 10) / 36)
    assert identity.auc(distances(np.zeros((4, 1))), WHO[:4]) == 0.5


def test_verification_takes_the_threshold_of_the_others():
    # Even people 0 and 2, odd ones 1 and 3. Even: pairs of one person 1 and 2, of two 4 and more: a threshold of 2.
    even = np.array([0.0, 1.0, 5.0, 7.0])
    # Odd: pairs of one person 1.5 and 3, of two 7 and more: a threshold of 3.
    odd = np.array([0.0, 1.5, 8.5, 11.5]) + 100
    vectors = np.concatenate([even, odd])[:, None]
    who = np.array([0, 0, 2, 2, 1, 1, 3, 3])
    # Odd pairs at 2: one of two accepted, all others refused. Even pairs at 3: all right.
    assert identity.verification(distances(vectors), who) == pytest.approx((0.75 + 1) / 2)


def test_scores_against_loops():
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(8), 4)
    vectors = rng.normal(size=(8, 5))[who] + 0.7 * rng.normal(size=(32, 5))
    found = identity.scores(vectors, who)
    d = distances(vectors)
    pairs = [(d[i, j], who[i], who[j]) for i, j in itertools.combinations(range(32), 2)]
    same, other = [x for x, a, b in pairs if a == b], [x for x, a, b in pairs if a != b]
    assert found["auc"] == pytest.approx(np.mean([x < y for x in same for y in other]))
    hits = [who[min((j for j in range(32) if j != i), key=lambda j: d[i, j])] == who[i] for i in range(32)]
    assert found["rank1"] == np.mean(hits)

    def accuracy(side, threshold):
        own = [(x, a == b) for x, a, b in pairs if a % 2 == b % 2 == side]
        return np.mean([np.mean([(x <= threshold) == is_same for x, is_same in own if is_same == k]) for k in (0, 1)])

    best = [max(d[np.triu_indices(32, 1)], key=lambda t, side=side: accuracy(side, t)) for side in (0, 1)]
    assert found["verification"] == pytest.approx((accuracy(1, best[0]) + accuracy(0, best[1])) / 2, abs=0.02)
    assert 0.6 < found["verification"] < 1


def test_an_embedding_without_people_is_at_chance():
    rng = np.random.default_rng(1)
    found = identity.scores(rng.normal(size=(300, 8)), np.arange(300) // 3)
    assert abs(found["auc"] - 0.5) < 0.06
    assert abs(found["verification"] - 0.5) < 0.06
    assert found["rank1"] < 0.05


def source(people):
    """Pictures whose every pixel is their own number."""
    n = len(people)
    table = Table((), np.zeros((n, 0), bool), np.zeros(n, np.int8), [""] * n, identity=np.array(people))
    images = lambda rows: np.broadcast_to(np.uint8(rows)[:, None, None, None], (len(rows), 2, 2, 3))  # noqa: E731
    return SimpleNamespace(table=table, images=images)


def test_people_are_taken_whole():
    faces = source([7, 7, 7, 3, 5, 5, 9, 9, 9, 2, 2, 8, 8])
    everybody = np.arange(13)
    assert identity.whole_people(faces, everybody, 0).tolist() == [i for i in range(13) if i != 3]
    few = identity.whole_people(faces, everybody, 5)
    assert [len(set(faces.table.identity[few])), len(few)] == [2, 5]
    assert identity.whole_people(faces, everybody[:6], 100).tolist() == [0, 1, 2, 4, 5]
    with pytest.raises(UserError, match="of whom the split has too few"):
        identity.whole_people(faces, everybody[:4], 0)


def test_embeddings_are_in_order(monkeypatch):
    monkeypatch.setattr(identity, "BATCH", 4)
    rows = np.array([4, 1, 3, 0, 2, 5])
    found = identity.embeddings(lambda x: jnp.mean(x, (1, 2)), source(range(6)), rows)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, np.repeat(rows[:, None] / 127.5 - 1, 3, 1), atol=1e-6)
