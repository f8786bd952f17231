from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rule_helpers import document

from maskwright.corpus.rules.mask_email import MaskEmail, mask_email_step
from maskwright.corpus.rules.mask_ip import MaskIp, mask_ip_step
from maskwright.corpus.rules.mask_phone import MaskPhone, mask_phone_step

STEPS = {
    "email": mask_email_step(MaskEmail(replacement="E")),
    "ip": mask_ip_step(MaskIp(replacement="I")),
    "phone": mask_phone_step(MaskPhone(replacement="P")),
}


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("email", "write to jane.doe+x@mail.example.org.", "write to E."),
        ("email", "邮箱abc_1@qq.com。谢谢", "邮箱E。谢谢"),
        ("email", "<a@b.co>, c-d@e-f.museum", "<E>, E"),
        ("ip", "from 8.8.8.8, then 1.1.1.1.", "from I, then I."),
        ("ip", "服务器114.114.114.114的", "服务器I的"),
        ("ip", "http://93.184.215.14:80/", "http://I:80/"),
        ("phone", "call +44 20 7946 0958 now", "call P now"),
        ("phone", "+1 (415) 555-2671, +86-138-1234-5678", "P, P"),
        ("phone", "+4915112345678", "P"),
        ("phone", "手机13812345678，电话", "手机P，电话"),
        ("phone", "138-1234-5678 or 139 1234 5678 or 008613812345678", "P or P or P"),
    ],
)
def test_what_is_masked(kind, text, expected):
    assert STEPS[kind](document(text)) == document(expected)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("email", "at @home, user@localhost, a@b, @x.com, x@y.c"),
        ("email", "no sign at all"),
        ("ip", "10.0.0.1 192.168.1.1 127.0.0.1 172.16.5.4 169.254.1.1 192.0.2.1 255.255.255.255"),
        ("ip", "256.1.1.1 1.2.3 1.2.3.4.5 v1.2.3.4 08.8.8.8 1.2.3.4a x.8.8.8.8"),
        ("phone", "1+1=2, +100, +1 000, -13812345678, 0.13812345678, 138123456789, a13812345678"),
        ("phone", "in 1914-1918 about 12812345678 people, +1234567890123456"),
        ("phone", "13812345678.5 and 13812345678-9"),
    ],
)
def test_what_is_left_alone(kind, text):
    original = document(text)
    assert STEPS[kind](original) is original


def test_default_replacements_are_reserved_for_examples():
    assert mask_email_step(MaskEmail())(document("a@b.com")) == document("email@example.com")
    assert mask_ip_step(MaskIp())(document("8.8.8.8")) == document("192.0.2.1")
    assert mask_phone_step(MaskPhone())(document("+4915112345678")) == document("555-0100")


@pytest.mark.parametrize("maker", [
    lambda to: mask_email_step(MaskEmail(replacement=to)),
    lambda to: mask_ip_step(MaskIp(replacement=to)),
    lambda to: mask_phone_step(MaskPhone(replacement=to)),
])  # fmt: skip
@given(
    text=st.lists(
        st.sampled_from(
            ["a@b.com", "@", ".", "8.8.8.8", "8", "+", "1", "13812345678", " ", "-", "com", "字"]
        ),
        max_size=14,
    ),
    to=st.sampled_from(
        ["", "x", "email@example.com", "9.9.9.9", "+4915112345678", r"\1 \g<0>", "@", "8", "."]
    ),
)
def test_twice_is_once(maker, text, to):
    step = maker(to)
    once = step(document("".join(text)))
    assert step(once) == once


@given(st.text(st.characters(exclude_characters="@+0123456789")))
def test_texts_without_signs_and_digits_stay(text):
    original = document(text)
    assert all(step(original) is original for step in STEPS.values())


@pytest.mark.parametrize(
    "text",
    ["a" * 100_000 + "@", "a." * 50_000 + "@b", "a@" * 50_000, "1." * 50_000, "+1" * 50_000, "1 " * 50_000],
)
def test_nasty_texts_come_to_an_end(text):
    for step in STEPS.values():
        assert step(step(document(text))) == step(document(text))
