"""A real ceremony at a small size, converted, and used for a proof."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from proving_circuits import export

from offchain.errors import InvalidInputError
from offchain.protocol.field import FIELD_MODULUS, quantise
from offchain.proving import ceremony
from offchain.proving.ceremony import CeremonyFailed, CeremonyResult, convert_ptau, run_local_ceremony
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.port import ProofRejected
from offchain.proving.srs import insecure_srs, load_srs, srs_file_bytes

LOG_ROWS = 9


@pytest.fixture(scope="module")
def concluded(tmp_path_factory: pytest.TempPathFactory) -> CeremonyResult:
    return run_local_ceremony(tmp_path_factory.mktemp("ceremony"), LOG_ROWS, contributions=2)


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.parametrize("log_rows", [LOG_ROWS, LOG_ROWS - 1])
def test_convert_ptau__real_ceremony__serves_set_up_proof_and_verification(
    prover: EzklProver, concluded: CeremonyResult, calibration: np.ndarray, tmp_path: Path, log_rows: int
) -> None:
    path = tmp_path / "srs"
    path.write_bytes(convert_ptau(concluded.transcript, log_rows))
    srs = load_srs(path, "local-ceremony")
    assert concluded.srs.origin == "local-ceremony"
    torch.manual_seed(6)
    onnx = export(torch.nn.Linear(4, 2), 1, 4)
    tuned = prover.tune([onnx], calibration)
    assert tuned.log_rows <= log_rows
    circuit = prover.build(onnx, tuned.segments[0].settings, srs)
    proof = prover.prove(circuit, prover.witness(circuit, quantise(calibration[0].tolist(), tuned.scales[0])))
    prover.verify(circuit.verifying_key(), srs, proof)
    with pytest.raises(ProofRejected):
        prover.verify(circuit.verifying_key(), insecure_srs(prover, LOG_ROWS), proof)


@pytest.mark.slow
@pytest.mark.integration
def test_verify_transcript__altered_power__fails(concluded: CeremonyResult, tmp_path: Path) -> None:
    with concluded.transcript.open("rb") as file:
        sections, _ = ceremony._read_header(file)
    content = bytearray(concluded.transcript.read_bytes())
    begin = sections[ceremony._TAU_G1][0]
    third, fourth = slice(begin + 128, begin + 192), slice(begin + 192, begin + 256)
    content[third], content[fourth] = content[fourth], content[third]  # points of the curve, in the wrong places
    forged = tmp_path / "forged.ptau"
    forged.write_bytes(content)
    with pytest.raises(CeremonyFailed):
        ceremony.verify_transcript(forged)


@pytest.mark.slow
@pytest.mark.integration
def test_convert_ptau__beyond_the_ceremony__is_refused(concluded: CeremonyResult) -> None:
    with pytest.raises(InvalidInputError, match="log_rows: 10 is not in 1 … 9"):
        convert_ptau(concluded.transcript, LOG_ROWS + 1)


@pytest.mark.unit
@pytest.mark.parametrize("content", [b"", b"ptau", b"ptau\x01\0\0\0\x01\0\0\0", b"zkey" + bytes(40)])
def test_convert_ptau__other_bytes__are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match="ptau"):
        convert_ptau(path, 4)


@pytest.mark.unit
@pytest.mark.parametrize("log_rows", [1, 8, 20, 28])
def test_root_exponent__both_generators__agree(log_rows: int) -> None:
    roots = [pow(generator, (FIELD_MODULUS - 1) >> log_rows, FIELD_MODULUS) for generator in (5, 7)]
    assert pow(roots[0], ceremony._root_exponent(log_rows), FIELD_MODULUS) == roots[1]


@pytest.mark.unit
@pytest.mark.parametrize("content", [b"", bytes(600), (9).to_bytes(4, "little") + bytes(srs_file_bytes(9))])
def test_load_srs__other_bytes__are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "srs"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match="is not an SRS file"):
        load_srs(path, "ceremony")
