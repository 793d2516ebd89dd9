"""The same through web3.py 8: `flow_web3.py HTTP_URL WS_URL ARTIFACT MNEMONIC`."""

import asyncio
import json
import sys
from pathlib import Path

import eth_account
from web3 import AsyncWeb3, HTTPProvider, Web3, WebSocketProvider
from web3.exceptions import ContractCustomError
from web3.middleware import SignAndSendRawMiddlewareBuilder

eth_account.Account.enable_unaudited_hdwallet_features()


def flow(url: str, artifact: dict, mnemonic: str) -> None:
    web3 = Web3(HTTPProvider(url))
    account = eth_account.Account.from_mnemonic(mnemonic, account_path="m/44'/60'/0'/0/6")
    web3.middleware_onion.inject(SignAndSendRawMiddlewareBuilder.build(account), layer=0)
    web3.eth.default_account = account.address
    made = web3.eth.contract(abi=artifact["abi"], bytecode=artifact["bytecode"]).constructor().transact()
    receipt = web3.eth.wait_for_transaction_receipt(made, poll_latency=0.2)
    escrow = web3.eth.contract(receipt["contractAddress"], abi=artifact["abi"])
    assert web3.to_hex(web3.eth.get_code(escrow.address)) == artifact["deployedBytecode"]
    tip, counter = escrow.functions.TIP().call(), escrow.functions.counter().call()
    assert (tip, counter) == (500_000_000_000_000, 0)
    deadline = web3.eth.get_block("latest")["timestamp"] + 100_000
    post = escrow.functions.post(b"task", 10**18, 0, deadline)
    assert post.estimate_gas({"value": 10**18 + tip}) > 50_000
    block = web3.eth.wait_for_transaction_receipt(post.transact({"value": 10**18 + tip}), poll_latency=0.2)
    assert block["status"] == 1
    event = escrow.events.TaskPosted().process_receipt(block)[0]
    try:
        post.call({"value": 1})
        raise SystemExit("the wrong value did not revert")
    except ContractCustomError as error:
        selector = web3.keccak(text="ValueMismatch(uint256,uint256)")[:4].hex()
        assert selector in str(error.data), error
    logs = escrow.events.TaskPosted().get_logs(from_block=block["blockNumber"])
    assert [each["args"]["taskId"] for each in logs] == [event["args"]["taskId"]]
    watched = web3.eth.filter({"address": escrow.address, "fromBlock": block["blockNumber"]})
    assert len(watched.get_all_entries()) == 1
    with web3.batch_requests() as batch:
        batch.add(web3.eth.get_balance(escrow.address))
        batch.add(escrow.functions.counter())
        assert batch.execute() == [10**18 + tip, 1]
    proof = web3.eth.get_proof(escrow.address, [(4).to_bytes(32, "big")], "latest")
    assert (proof["balance"], len(proof["accountProof"]) > 0) == (10**18 + tip, True)
    paid = web3.eth.wait_for_transaction_receipt(
        web3.eth.send_transaction({"to": "0x" + "99" * 20, "value": 7}), poll_latency=0.2
    )
    assert paid["gasUsed"] == 21_000


async def subscription(url: str, http: str, mnemonic: str) -> None:
    async with AsyncWeb3(WebSocketProvider(url)) as web3:
        await web3.eth.subscribe("newHeads")
        account = eth_account.Account.from_mnemonic(mnemonic, account_path="m/44'/60'/0'/0/6")
        plain = Web3(HTTPProvider(http))
        plain.middleware_onion.inject(SignAndSendRawMiddlewareBuilder.build(account), layer=0)
        plain.eth.send_transaction({"from": account.address, "to": "0x" + "99" * 20, "value": 1})
        async with asyncio.timeout(100):
            async for message in web3.socket.process_subscriptions():
                assert message["result"]["number"] > 0
                return


if __name__ == "__main__":
    flow(sys.argv[1], json.loads(Path(sys.argv[3]).read_text()), sys.argv[4])
    asyncio.run(subscription(sys.argv[2], sys.argv[1], sys.argv[4]))
    sys.stdout.write("web3.py: all steps passed\n")
