// What a web page does through ethers 6: `node flow_ethers.mjs HTTP_URL WS_URL ARTIFACT MNEMONIC`.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { ContractFactory, HDNodeWallet, JsonRpcProvider, NonceManager, WebSocketProvider, parseEther, toUtf8Bytes } from "ethers";

const [http, ws, artifactPath, mnemonic] = process.argv.slice(2);
const artifact = JSON.parse(readFileSync(artifactPath, "utf8"));
const provider = new JsonRpcProvider(http, undefined, { pollingInterval: 200 });
const root = HDNodeWallet.fromPhrase(mnemonic, undefined, "m/44'/60'/0'/0/5");
const wallet = new NonceManager(root.connect(provider));

// Subscription: heads arrive while the rest goes on.
const socket = new WebSocketProvider(ws);
const heads = [];
await socket.on("block", (number) => heads.push(number));

// Deploy.
const escrow = await new ContractFactory(artifact.abi, artifact.bytecode, wallet).deploy();
await escrow.waitForDeployment();
const address = await escrow.getAddress();
assert.equal(await provider.getCode(address), artifact.deployedBytecode);

// Call, several at once: ethers sends a batch.
const [tip, counter, open] = await Promise.all([escrow.TIP(), escrow.counter(), escrow.OPEN()]);
assert.deepEqual([tip, counter, open], [parseEther("0.0005"), 0n, 4n]);

// Estimate and send; the event is decoded from the receipt.
const deadline = (await provider.getBlock("latest")).timestamp + 100_000;
const value = parseEther("1") + tip;
const args = [toUtf8Bytes("task"), parseEther("1"), 0n, deadline];
assert.ok((await escrow.post.estimateGas(...args, { value })) > 50_000n);
const receipt = await (await escrow.post(...args, { value })).wait();
assert.equal(receipt.status, 1);
const posted = escrow.interface.parseLog(receipt.logs[0]);
assert.equal(posted.name, "TaskPosted");

// Revert reasons, as custom errors.
await assert.rejects(escrow.post.staticCall(...args, { value: 1n }), (error) => error.revert?.name === "ValueMismatch");
await assert.rejects(escrow.withdraw.estimateGas(), (error) => error.code === "CALL_EXCEPTION");

// Logs.
const found = await escrow.queryFilter(escrow.filters.TaskPosted(posted.args.taskId), receipt.blockNumber);
assert.equal(found.length, 1);
assert.equal(found[0].transactionHash, receipt.hash);

// A transfer, its receipt and its block.
const sent = await wallet.sendTransaction({ to: "0x" + "99".repeat(20), value: 7n });
const paid = await sent.wait();
assert.equal(paid.gasUsed, 21_000n);
assert.ok((await provider.getBlock(paid.blockNumber)).transactions.includes(paid.hash));

// Proof of the escrow's balance and of its counter, which is the fifth variable of the contract.
const proof = await provider.send("eth_getProof", [address, ["0x" + "4".padStart(64, "0")], "latest"]);
assert.equal(BigInt(proof.balance), value);
assert.equal(BigInt(proof.storageProof[0].value), 1n);
assert.ok(proof.accountProof.length > 0);

for (let waited = 0; heads.length === 0 && waited < 100; ++waited) await new Promise((done) => setTimeout(done, 100));
assert.ok(heads.length > 0, "no head was pushed");
await socket.destroy();
provider.destroy();
console.log("ethers: all steps passed");
