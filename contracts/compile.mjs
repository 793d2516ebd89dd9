// Compile every contract in this folder into the artifacts that the Python package ships; `--check` only compares.
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import solc from "solc";

const folder = dirname(fileURLToPath(import.meta.url));
const artifacts = join(folder, "..", "src", "learnchain", "execution", "artifacts");
const check = process.argv.includes("--check");

// No metadata hash in the bytecode: the same source gives the same bytes on every machine and path.
const settings = {
  evmVersion: "prague",
  optimizer: { enabled: true, runs: 1000 },
  metadata: { bytecodeHash: "none", appendCBOR: false },
};

function compile(file) {
  const content = readFileSync(join(folder, file), "utf8");
  const input = {
    language: "Solidity",
    sources: { [file]: { content } },
    settings: { ...settings, outputSelection: { "*": { "*": ["abi", "evm.bytecode.object", "evm.deployedBytecode.object"] } } },
  };
  const output = JSON.parse(solc.compile(JSON.stringify(input)));
  const problems = output.errors ?? [];
  if (problems.length > 0) {
    throw new Error(problems.map((problem) => problem.formattedMessage).join("\n"));
  }
  const name = file.replace(/\.sol$/, "");
  const contract = output.contracts[file][name];
  const artifact = {
    abi: contract.abi,
    bytecode: "0x" + contract.evm.bytecode.object,
    deployedBytecode: "0x" + contract.evm.deployedBytecode.object,
    compiler: solc.version(),
    settings,
    sourceSha256: createHash("sha256").update(content).digest("hex"),
  };
  return [join(artifacts, name + ".json"), JSON.stringify(artifact, null, 2) + "\n"];
}

mkdirSync(artifacts, { recursive: true });
for (const file of readdirSync(folder).filter((name) => name.endsWith(".sol")).sort()) {
  const [path, text] = compile(file);
  if (!check) {
    writeFileSync(path, text);
  } else if (!existsSync(path) || readFileSync(path, "utf8") !== text) {
    console.error(`${path} is not what ${file} compiles to; run "npm run build" in contracts/`);
    process.exitCode = 1;
  }
}
