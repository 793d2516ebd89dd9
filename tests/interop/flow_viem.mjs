// The same through viem: `node flow_viem.mjs HTTP_URL WS_URL ARTIFACT MNEMONIC`.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import {
  BaseError, ContractFunctionRevertedError, createPublicClient, createWalletClient, decodeEventLog, defineChain, http, parseEther, toHex, webSocket,
} from "viem";
import { mnemonicToAccount } from "viem/accounts";

const [httpUrl, wsUrl, artifactPath, mnemonic] = process.argv.slice(2);
const { abi, bytecode, deployedBytecode } = JSON.parse(readFileSync(artifactPath, "utf8"));
const transport = http(httpUrl, { batch: true });
const id = await createPublicClient({ transport }).getChainId();
const chain = defineChain({ id, name: "local", nativeCurrency: { name: "Ether", symbol: "ETH", decimals: 18 }, rpcUrls: { default: { http: [httpUrl] } } });
const client = createPublicClient({ chain, transport, pollingInterval: 200 });
const account = mnemonicToAccount(mnemonic, { addressIndex: 6 });
const wallet = createWalletClient({ account, chain, transport });

const socket = createPublicClient({ chain, transport: webSocket(wsUrl) });
const heads = [];
const unwatch = socket.watchBlocks({ onBlock: (block) => heads.push(block.number) });

const deployed = await client.waitForTransactionReceipt({ hash: await wallet.deployContract({ abi, bytecode }) });
const address = deployed.contractAddress;
assert.equal(await client.getCode({ address }), deployedBytecode);

const contract = { address, abi };
const [tip, counter] = await Promise.all([
  client.readContract({ ...contract, functionName: "TIP" }),
  client.readContract({ ...contract, functionName: "counter" }),
]);
assert.deepEqual([tip, counter], [parseEther("0.0005"), 0n]);

const deadline = (await client.getBlock()).timestamp + 100_000n;
const value = parseEther("1") + tip;
const post = { ...contract, functionName: "post", args: [toHex("task"), parseEther("1"), 0n, deadline], account };
assert.ok((await client.estimateContractGas({ ...post, value })) > 50_000n);
const { request } = await client.simulateContract({ ...post, value });
const receipt = await client.waitForTransactionReceipt({ hash: await wallet.writeContract(request) });
assert.equal(receipt.status, "success");
const event = decodeEventLog({ abi, data: receipt.logs[0].data, topics: receipt.logs[0].topics });
assert.equal(event.eventName, "TaskPosted");

await assert.rejects(client.simulateContract({ ...post, value: 1n }), (error) => {
  const revert = error instanceof BaseError && error.walk((each) => each instanceof ContractFunctionRevertedError);
  return revert?.data?.errorName === "ValueMismatch";
});

const logs = await client.getContractEvents({ ...contract, eventName: "TaskPosted", fromBlock: receipt.blockNumber });
assert.equal(logs.length, 1);
const filter = await client.createContractEventFilter({ ...contract, eventName: "TaskPosted", fromBlock: receipt.blockNumber });
assert.equal((await client.getFilterLogs({ filter })).length, 1);
assert.equal(await client.uninstallFilter({ filter }), true);

const paid = await client.waitForTransactionReceipt({ hash: await wallet.sendTransaction({ to: "0x" + "99".repeat(20), value: 7n }) });
assert.equal(paid.gasUsed, 21_000n);
const proof = await client.getProof({ address, storageKeys: ["0x" + "4".padStart(64, "0")] });
assert.equal(proof.balance, value);
assert.equal(BigInt(proof.storageProof[0].value), 1n);
assert.ok((await client.getFeeHistory({ blockCount: 2, rewardPercentiles: [50] })).baseFeePerGas.length > 1);

for (let waited = 0; heads.length === 0 && waited < 100; ++waited) await new Promise((done) => setTimeout(done, 100));
assert.ok(heads.length > 0, "no head was pushed");
unwatch();
console.log("viem: all steps passed");
process.exit(0);
