"""One broker or several: what a setting names, and which of them is tried next."""

import pytest

from broker.addresses import BrokerAddresses, split_urls

A, B, C = "amqp://u:p@a/", "amqp://u:p@b:1/", "amqps://u:p@c/v"


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        (A, (A,)),
        (f"{A},{B}", (A, B)),
        (f" {A} , {B},{C}, ", (A, B, C)),
        (f"{A} {B}\n{C}", (A, B, C)),
        # A comma that no URL follows belongs to a password.
        ("amqp://u:a,b@h/", ("amqp://u:a,b@h/",)),
        ("memory://", ("memory://",)),
        ("", ()),
    ],
)
def test_a_setting_names_one_broker_or_several(text: str, urls: tuple[str, ...]) -> None:
    assert split_urls(text) == urls


def test_each_is_tried_once_before_any_is_tried_twice() -> None:
    addresses = BrokerAddresses([A, B, C])
    tried = []
    for number in range(6):
        assert addresses.rounds == number // 3
        tried.append(addresses.current)
        addresses.failed()
    assert sorted(tried[:3]) == [A, B, C]
    assert tried[3:] == tried[:3]


def test_one_that_was_lost_is_the_last_to_be_tried_again() -> None:
    addresses = BrokerAddresses([A, B, C])
    addresses.succeeded()
    lost = addresses.current
    addresses.failed()
    assert addresses.current != lost
    assert addresses.rounds == 0
    addresses.succeeded()
    addresses.failed()
    assert addresses.current != lost


def test_clients_start_at_random_so_that_they_spread() -> None:
    firsts = {BrokerAddresses([A, B, C]).current for _ in range(100)}
    assert firsts == {A, B, C}


def test_it_is_shown_without_user_and_password() -> None:
    assert str(BrokerAddresses([B])) == "amqp://b:1/"


def test_no_address_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="no broker is named"):
        BrokerAddresses([])
