from __future__ import annotations

import pytest
from eth_hash.auto import keccak

from offchain.chain.events import read_events
from offchain.protocol.types import ZERO_ADDRESS, ModelId
from tests.contracts.stage import STAKES, Stage, refused
from tests.local_chain import ETHER, InstantSender

pytestmark = pytest.mark.integration

UNBONDING_SECONDS = 691_200
MINIMUM = ETHER


@pytest.fixture
def newcomer(stage: Stage) -> InstantSender:
    return stage.chain.instant("newcomer")


def last_events(stage: Stage) -> list[tuple[str, dict[str, object]]]:
    head = stage.contracts.connection.block_number()
    return [(event.name, event.arguments) for event in read_events(stage.contracts, head, head)]


def weight_now(stage: Stage, model: ModelId | None = None) -> int:
    """The total weight at the end of the newest block."""
    head = stage.contracts.connection.block_number()
    return stage.contracts.staking.total_weight_at(model or stage.model, head)


def test_bond__twice__adds_up_and_moves_the_weight(stage: Stage) -> None:
    worker, staking = stage.workers[0], stage.contracts.staking
    before = weight_now(stage)
    staking.bond(worker, 5)
    assert staking.active_of(worker.address) == STAKES[0] + 5
    assert weight_now(stage) == before + 5
    assert [name for name, _ in last_events(stage)] == ["Bonded", "WeightChanged"]
    assert last_events(stage)[0][1] == {"operator": worker.address, "amount": 5, "active": STAKES[0] + 5}


def test_bond__nothing__is_refused(stage: Stage, newcomer: InstantSender) -> None:
    with refused("AmountIsZero"):
        stage.contracts.staking.bond(newcomer, 0)


def test_set_encryption_key__zero__is_refused(stage: Stage, newcomer: InstantSender) -> None:
    with refused("EncryptionKeyIsZero"):
        stage.contracts.staking.set_encryption_key(newcomer, bytes(32))


def test_set_encryption_key__again__replaces_it(stage: Stage, newcomer: InstantSender) -> None:
    staking = stage.contracts.staking
    assert staking.encryption_key_of(newcomer.address) == bytes(32)
    for key in (keccak(b"1"), keccak(b"2")):
        staking.set_encryption_key(newcomer, key)
        assert staking.encryption_key_of(newcomer.address) == key
        assert last_events(stage) == [
            ("EncryptionKeySet", {"operator": newcomer.address, "encryptionKey": key}),
        ]


def test_serve__whoever_does_not_qualify__is_refused_by_name(stage: Stage, newcomer: InstantSender) -> None:
    staking, unknown = stage.contracts.staking, ModelId(keccak(b"unknown"))
    with refused("UnknownModel", modelId=unknown):
        staking.serve(newcomer, unknown)
    with refused("EncryptionKeyMissing", operator=newcomer.address):
        staking.serve(newcomer, stage.model)
    staking.set_encryption_key(newcomer, keccak(b"key"))
    staking.bond(newcomer, MINIMUM - 1)
    with refused("InsufficientStake", operator=newcomer.address, required=MINIMUM, available=MINIMUM - 1):
        staking.serve(newcomer, stage.model)
    staking.bond(newcomer, 1)
    staking.serve(newcomer, stage.model)
    assert staking.is_serving(newcomer.address, stage.model)
    with refused("AlreadyServing", operator=newcomer.address, modelId=stage.model):
        staking.serve(newcomer, stage.model)


def test_serve__seventeenth_model__is_refused_and_leaving_one_makes_room(stage: Stage, newcomer: InstantSender) -> None:
    staking = stage.contracts.staking
    models = [stage.register_segments(1, f"model {index}") for index in range(17)]
    staking.set_encryption_key(newcomer, keccak(b"key"))
    staking.bond(newcomer, MINIMUM)
    for model in models[:16]:
        staking.serve(newcomer, model)
    with refused("TooManyModels", operator=newcomer.address, maximum=16):
        staking.serve(newcomer, models[16])
    staking.stop_serving(newcomer, models[3])
    staking.serve(newcomer, models[16])
    staking.bond(newcomer, 7)
    assert [weight_now(stage, model) for model in models] == [0 if i == 3 else MINIMUM + 7 for i in range(17)]


def test_stop_serving__and_come_back__keeps_the_leaf(stage: Stage) -> None:
    worker, staking = stage.workers[1], stage.contracts.staking
    before = weight_now(stage)
    staking.stop_serving(worker, stage.model)
    assert not staking.is_serving(worker.address, stage.model)
    assert weight_now(stage) == before - STAKES[1]
    with refused("NotServing", operator=worker.address, modelId=stage.model):
        staking.stop_serving(worker, stage.model)
    staking.bond(worker, 3)
    assert weight_now(stage) == before - STAKES[1]
    staking.serve(worker, stage.model)
    assert weight_now(stage) == before + 3
    assert staking._read("leafCount", stage.model) == 3
    assert staking._read("operatorAt", stage.model, 1) == worker.address
    assert ("ServingStarted", {"modelId": stage.model, "operator": worker.address, "leaf": 1}) in last_events(stage)


def test_start_unbonding__part__moves_it_out_of_the_draws(stage: Stage) -> None:
    worker, staking = stage.workers[0], stage.contracts.staking
    before = weight_now(stage)
    staking.start_unbonding(worker, ETHER)
    released_at = stage.chain.connection.timestamp() + UNBONDING_SECONDS
    assert staking.active_of(worker.address) == STAKES[0] - ETHER
    assert staking.unbonding_of(worker.address) == (ETHER, released_at)
    assert weight_now(stage) == before - ETHER
    with refused("StillUnbonding", releaseAt=released_at, now_=released_at - 1):
        worker.at = released_at - 1
        staking.withdraw(worker)
    worker.at = released_at
    balance = stage.chain.connection.balance(worker.address)
    receipt = staking.withdraw(worker)
    paid = stage.chain.connection.web3.eth.get_transaction_receipt(receipt.transaction_hash)  # type: ignore[arg-type]
    spent = paid["gasUsed"] * paid["effectiveGasPrice"]
    assert stage.chain.connection.balance(worker.address) == balance + ETHER - spent
    assert staking.unbonding_of(worker.address)[0] == 0
    with refused("NothingToWithdraw", operator=worker.address):
        staking.withdraw(worker)


def test_start_unbonding__below_the_minimum__leaves_no_weight(stage: Stage) -> None:
    worker = stage.workers[0]
    before = weight_now(stage)
    stage.contracts.staking.start_unbonding(worker, STAKES[0] - MINIMUM + 1)
    assert weight_now(stage) == before - STAKES[0]


def test_start_unbonding__again__starts_the_delay_again(stage: Stage) -> None:
    worker, staking = stage.workers[0], stage.contracts.staking
    staking.start_unbonding(worker, 1)
    stage.chain.advance(UNBONDING_SECONDS - 10)
    staking.start_unbonding(worker, 2)
    assert staking.unbonding_of(worker.address) == (3, stage.chain.connection.timestamp() + UNBONDING_SECONDS)


def test_start_unbonding__too_much_or_nothing__is_refused(stage: Stage) -> None:
    worker, staking = stage.workers[0], stage.contracts.staking
    with refused("AmountIsZero"):
        staking.start_unbonding(worker, 0)
    with refused("InsufficientStake", operator=worker.address, required=STAKES[0] + 1, available=STAKES[0]):
        staking.start_unbonding(worker, STAKES[0] + 1)
    # The cast to uint208 comes after the comparison.
    with refused("InsufficientStake", operator=worker.address, required=2**208, available=STAKES[0]):
        staking.start_unbonding(worker, 2**208)


def slash(stage: Stage, worker: InstantSender, amount: int, model: ModelId) -> None:
    """Slash as the job contract."""
    staking, jobs = stage.contracts.staking, stage.contracts.jobs
    stage.chain.fund(jobs.address, ETHER)
    data = staking.contract.functions.slash(worker.address, amount, model)._encode_transaction_data()
    stage.owner.send_raw("slash", {"from": jobs.address, "to": staking.address, "data": data})


def test_slash__anybody_but_the_job_contract__is_refused(stage: Stage) -> None:
    staking = stage.contracts.staking
    assert staking._read("slasher") == stage.contracts.jobs.address
    for caller in (stage.owner, stage.workers[0]):
        with refused("NotSlasher", caller=caller.address):
            staking._write(caller, "slash", stage.workers[1].address, 1, stage.model)


@pytest.mark.parametrize(
    ("amount", "active", "unbonding"),
    [
        (0, STAKES[0] - ETHER, ETHER),
        (5, STAKES[0] - ETHER - 5, ETHER),
        (STAKES[0] - ETHER, 0, ETHER),
        (STAKES[0] - 1, 0, 1),
        (10 * ETHER, 0, 0),
    ],
)
def test_slash__any_amount__takes_active_first_then_unbonding_and_no_more(
    stage: Stage, amount: int, active: int, unbonding: int
) -> None:
    worker, staking = stage.workers[0], stage.contracts.staking
    staking.start_unbonding(worker, ETHER)
    balance = stage.chain.connection.balance
    held, nobody, weight = balance(staking.address), balance(ZERO_ADDRESS), weight_now(stage)
    slash(stage, worker, amount, stage.model)
    taken = STAKES[0] - active - unbonding
    assert staking.active_of(worker.address) == active
    assert staking.unbonding_of(worker.address)[0] == unbonding
    assert (balance(staking.address), balance(ZERO_ADDRESS)) == (held - taken, nobody + taken)
    left = active if active >= MINIMUM else 0
    assert weight_now(stage) == weight - (STAKES[0] - ETHER) + left
    name, arguments = last_events(stage)[0]
    expected = {"operator": worker.address, "amount": taken, "active": active, "unbonding": unbonding}
    assert (name, arguments) == ("Slashed", expected)


def test_slash__operator_of_several_models__other_weights_follow_when_refreshed(stage: Stage) -> None:
    worker, staking = stage.workers[0], stage.contracts.staking
    other = stage.register_segments(1, "other")
    staking.serve(worker, other)
    before = weight_now(stage)
    slash(stage, worker, ETHER, stage.model)
    assert (weight_now(stage), weight_now(stage, other)) == (before - ETHER, STAKES[0])
    staking.refresh_weights(stage.owner, worker.address)
    assert (weight_now(stage), weight_now(stage, other)) == (before - ETHER, STAKES[0] - ETHER)
    staking.refresh_weights(stage.owner, stage.owner.address)
    assert last_events(stage) == []


def test_slash__operator_with_nothing_left__is_out_of_the_models_draws_at_once(stage: Stage) -> None:
    worker, staking = stage.workers[0], stage.contracts.staking
    other = stage.register_segments(1, "other")
    staking.serve(worker, other)
    slash(stage, worker, STAKES[0], stage.model)
    assert weight_now(stage, other) == STAKES[0]
    # Nothing can be taken any more, and the first fault in the other model's jobs still ends its weight there.
    slash(stage, worker, 1, other)
    assert weight_now(stage, other) == 0


def test_slash__model_that_is_not_served_any_more__keeps_its_weight_at_nothing(stage: Stage) -> None:
    worker, staking = stage.workers[0], stage.contracts.staking
    staking.stop_serving(worker, stage.model)
    before = weight_now(stage)
    slash(stage, worker, 5, stage.model)
    assert weight_now(stage) == before
    assert staking.active_of(worker.address) == STAKES[0] - 5


def test_withdraw__receiver_that_refuses_ether__loses_nothing(stage: Stage) -> None:
    staking = stage.contracts.staking
    mock = stage.chain.deploy(stage.owner, "AccountMock")
    account = stage.chain.connection.contract("AccountMock", mock)
    calls = staking.contract.functions
    execute = account.functions.execute
    stage.owner.send(execute(staking.address, calls.bond()._encode_transaction_data()), ETHER)
    stage.owner.send(execute(staking.address, calls.startUnbonding(ETHER)._encode_transaction_data()))
    stage.chain.advance(UNBONDING_SECONDS)
    withdraw = calls.withdraw()._encode_transaction_data()
    stage.owner.send(account.functions.setManner(1, b""))
    with refused("TransferFailed", recipient=mock, amount=ETHER):
        stage.owner.send(execute(staking.address, withdraw))
    assert staking.unbonding_of(mock)[0] == ETHER
    # Re-entering is refused, and the withdrawal itself goes through, once.
    stage.owner.send(account.functions.setManner(2, withdraw))
    stage.owner.send(execute(staking.address, withdraw))
    assert not account.functions.reentered().call()
    assert stage.chain.connection.balance(mock) == ETHER


def test_draw__block_that_is_not_over__is_refused(stage: Stage) -> None:
    staking, head = stage.contracts.staking, stage.contracts.connection.block_number()
    with refused("BlockNotOver", blockNumber=head + 7, current=head):
        staking.draw(stage.model, head + 7, keccak(b"seed"), 1, [])
