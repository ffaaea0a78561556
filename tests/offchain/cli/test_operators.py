"""``interlock operator`` against real contracts, with a keystore of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from eth_hash.auto import keccak
from typer.testing import CliRunner

from offchain.chain.contracts import Contracts
from offchain.chain.sender import Sender
from offchain.cli.app import app
from offchain.cli.operators import format_time, format_wei, read_amount
from offchain.errors import InvalidInputError
from offchain.protocol.machine.limits import APPEAL_SECONDS
from offchain.protocol.types import Link
from offchain.worker.config import WorkerConfig, create_keystore, open_keystore
from tests.contracts.stage import POLICY, Stage, with_policy
from tests.local_chain import ETHER, LocalChain

UNBONDING_SECONDS = 691_200

Run = Callable[..., list[str]]


@pytest.fixture
def config(chain: LocalChain, contracts: Contracts, isolation: None, tmp_path: Path) -> WorkerConfig:
    """A worker's configuration file, with ten ether in its account."""
    account = create_keystore(tmp_path / "keystore.json", tmp_path / "password")
    chain.fund(account.address, 10 * ETHER)
    contracts.deployment.save(tmp_path / "deployment.json")
    written = WorkerConfig(
        name="w",
        rpc_url=chain.connection.rpc_url,
        ipfs_url="http://127.0.0.1:1",
        deployment=tmp_path / "deployment.json",
        keystore=tmp_path / "keystore.json",
        password_file=tmp_path / "password",
        identity=tmp_path / "identity.age",
        state_directory=tmp_path / "state",
        cache_directory=tmp_path / "cache",
        stake_wei=ETHER,
    )
    written.save(tmp_path / "worker.json")
    return written


@pytest.fixture
def run(config: WorkerConfig) -> Run:
    """Run a command on the configuration; what it prints, line by line."""

    def run(command: str, *arguments: str, code: int = 0) -> list[str]:
        path = str(config.keystore.parent / "worker.json")
        done = CliRunner().invoke(app, ["operator", command, path, *arguments])
        assert done.exit_code == code, done.output
        return (done.stdout if code == 0 else done.stderr).splitlines()

    return run


@pytest.mark.integration
def test_operator__whole_life__prints_exact_amounts(
    run: Run, chain: LocalChain, contracts: Contracts, config: WorkerConfig
) -> None:
    sender = Sender(chain.connection, open_keystore(config.keystore, config.password_file))
    stage = Stage(chain, contracts, chain.instant("requester"), chain.instant("owner"))
    model = stage.register_segments(1, name="operator")

    shown = run("show")
    assert shown[0] == f"operator {sender.address}"
    assert shown[1] == "balance 10 ETH, to claim 0 ETH"
    assert shown[2:] == [
        "stake: 0 ETH active, 0 ETH unbonding",
        "below 1 ETH, the least that counts in draws",
        "no model served yet",
        "no proof waits or is made",
    ]

    bonded = run("bond", "2.000000000000000001")
    assert bonded[0].startswith("bonded 2.000000000000000001 ETH in 0x")
    assert bonded[1:] == ["stake: 2.000000000000000001 ETH active, 0 ETH unbonding"]

    contracts.staking.set_encryption_key(sender, b"k" * 32)
    contracts.staking.serve(sender, model)
    unbonded = run("unbond", "1wei")
    released = contracts.staking.unbonding_of(sender.address)[1]
    assert released == chain.connection.timestamp() + UNBONDING_SECONDS
    when = f"to be withdrawn from {format_time(released)} ({released})"
    assert unbonded[1:] == [f"stake: 2 ETH active, 0.000000000000000001 ETH unbonding, {when}"]
    assert any("yes" in line and "0" in line for line in run("show"))

    left = run("leave")
    assert left[0] == f"left the draws of 0x{model.hex()}"
    assert left[1].startswith("unbonding 2 ETH in 0x")
    assert left[2] == "the time of 0.000000000000000001 ETH that were unbonding starts again"
    assert not contracts.staking.is_serving(sender.address, model)
    assert contracts.staking.unbonding_of(sender.address)[0] == 2 * ETHER + 1
    assert run("leave")[0].startswith("stake: 0 ETH active, 2.000000000000000001 ETH unbonding")

    released = contracts.staking.unbonding_of(sender.address)[1]
    assert run("withdraw", code=2) == [f"unbonding: it is not over until {format_time(released)}", "→ withdraw then"]
    chain.advance(UNBONDING_SECONDS)
    withdrawn = run("withdraw")
    assert withdrawn[0].startswith("withdrew 2.000000000000000001 ETH in 0x")
    assert withdrawn[1] == "stake: 0 ETH active, 0 ETH unbonding"


@pytest.mark.integration
def test_claim__credited__pays_it_out(run: Run, chain: LocalChain, contracts: Contracts, config: WorkerConfig) -> None:
    sender = Sender(chain.connection, open_keystore(config.keystore, config.password_file))
    stage = Stage(chain, contracts, chain.instant("requester"), chain.instant("owner"))
    stage.model = stage.register_segments(1, name="claim")
    play = stage.request(POLICY, fee_wei=10**15, requester=sender)
    chain.advance(POLICY.input_seconds + 1)
    play.expire()
    assert contracts.jobs.credit_of(sender.address) == 10**15
    assert "to claim 0.001 ETH" in run("show")[1]
    assert run("claim")[0].startswith("claimed 0.001 ETH in 0x")
    assert contracts.jobs.credit_of(sender.address) == 0


@pytest.mark.integration
def test_release__challenged_and_nobody_appealed__shares_it_when_it_is_due(
    run: Run, chain: LocalChain, contracts: Contracts, config: WorkerConfig
) -> None:
    sender = Sender(chain.connection, open_keystore(config.keystore, config.password_file))
    stage = Stage(chain, contracts, chain.instant("requester"), chain.instant("owner"))
    stage.model = stage.register_segments(1, name="release")
    stage.workers = (chain.instant("liar"), chain.instant("another"), sender)  # type: ignore[assignment]
    for worker in stage.workers:
        stage.join(worker, 2 * ETHER)
    play = stage.request(with_policy(proof_permille=0)).to_committing()
    lie = Link(keccak(b"a lie"))
    play.play_round({worker.address: lie for worker in stage.workers[:2]})
    play.announce(0, sender)
    chain.mine(1)
    play.challenge(0, sender, announced=True)

    held = [line for line in run("show") if "held until" in line]
    assert len(held) == 2
    assert held[0].startswith("1 ETH of 0x")
    assert f"job 0x{play.job.hex()}, segment 0; shared then" in held[0]
    assert run("release") == ["nothing is due; 2 held"]
    chain.advance(APPEAL_SECONDS)
    assert [line.split(" in ")[0] for line in run("release")] == ["released 1 ETH"] * 2
    assert "to claim 0.6 ETH" in run("show")[1]
    assert run("claim")[0].startswith("claimed 0.6 ETH in 0x")
    assert contracts.staking.compensation_of(sender.address) == 0


@pytest.mark.integration
@pytest.mark.parametrize(
    ("command", "arguments", "problem", "mend"),
    [
        ("bond", ["1e3"], "AMOUNT: '1e3' is no amount", "give ether with at most 18 decimals"),
        ("bond", ["0"], "AMOUNT: '0' is no amount", "give ether with at most 18 decimals"),
        ("bond", ["11"], "AMOUNT: the account cannot pay for it and for gas", "send the account more"),
        ("unbond", ["1"], "AMOUNT: only 0 ETH are active", "give at most 0 ETH"),
        ("withdraw", [], "unbonding: nothing is", "take stake out first: `interlock operator unbond`"),
        ("claim", [], "credit: there is none", "wait until a job that the operator worked on is finalised"),
    ],
)
def test_operator__cannot_be_done__names_field_and_mend(
    run: Run, command: str, arguments: list[str], problem: str, mend: str
) -> None:
    printed = run(command, *arguments, code=2)
    assert printed[0] == problem
    assert printed[1].startswith(f"→ {mend}")


@pytest.mark.unit
def test_operator__no_configuration__names_the_file(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["operator", "show", str(tmp_path / "none.json")])
    assert done.exit_code == 2
    assert "name a worker's JSON file" in done.stderr


@pytest.mark.unit
@pytest.mark.parametrize(
    ("text", "amount_wei"),
    [
        ("1", ETHER),
        ("1.5", 15 * 10**17),
        ("0.000000000000000001", 1),
        ("2eth", 2 * ETHER),
        (" 10 wei".replace(" ", ""), 10),
    ],
)
def test_read_amount__ether_or_wei__is_exact(text: str, amount_wei: int) -> None:
    assert read_amount(text) == amount_wei
    assert read_amount(format_wei(amount_wei).removesuffix(" ETH")) == amount_wei


@pytest.mark.unit
@pytest.mark.parametrize("text", ["", "-1", "0", "0wei", "1,5", "1.0000000000000000001", "nan", "٣", "1.5wei", "1e18"])
def test_read_amount__no_amount__is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError) as raised:
        read_amount(text)
    assert raised.value.field == "AMOUNT"
