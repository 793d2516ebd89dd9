#!/usr/bin/env bash
# The same with cast: `flow_cast.sh HTTP_URL WS_URL ARTIFACT MNEMONIC`, with cast on the PATH.
set -euo pipefail
url=$1 artifact=$3 mnemonic=$4
export ETH_RPC_URL=$url
fail() { echo "cast: $*" >&2; exit 1; }
key=$(cast wallet private-key "$mnemonic" 5)
me=$(cast wallet address --private-key "$key")
field() { node -p "JSON.parse(require('fs').readFileSync(0))['$1']"; }

code=$(node -p "JSON.parse(require('fs').readFileSync('$artifact')).bytecode")
address=$(cast send --private-key "$key" --json --create "$code" | field contractAddress)
[ "$(cast call "$address" 'counter()(uint256)')" = 0 ] || fail "counter"
tip=500000000000000
deadline=$(($(cast block latest --field timestamp) + 100000))
post='post(bytes,uint256,uint256,uint64)'
[ "$(cast estimate "$address" "$post" 0x7461736b 1000 0 $deadline --value $((1000 + tip)) --from "$me")" -gt 50000 ] || fail "estimate"
hash=$(cast send --private-key "$key" --json "$address" "$post" 0x7461736b 1000 0 $deadline --value $((1000 + tip)) | field transactionHash)
[ "$(cast receipt "$hash" --json | field status)" = 0x1 ] || fail "receipt"
[ "$(cast call "$address" 'counter()(uint256)')" = 1 ] || fail "counter after the post"
selector=$(cast sig 'NothingToWithdraw()')
if answer=$(cast call "$address" 'withdraw()' 2>&1); then fail "withdraw did not revert"; fi
[[ $answer == *"${selector#0x}"* || $answer == *NothingToWithdraw* ]] || fail "no revert data: $answer"
logs=$(cast logs --from-block 0 --address "$address" 'TaskPosted(bytes32,address,uint256,uint256,uint64,bytes)' --json)
[ "$(echo "$logs" | field length)" = 1 ] || fail "logs"
hash=$(cast send --private-key "$key" --json 0x9999999999999999999999999999999999999999 --value 7 | field transactionHash)
[ "$(cast tx "$hash" value | cut -d' ' -f1)" = 7 ] || fail "transfer"
proof=$(cast proof "$address" 0x0000000000000000000000000000000000000000000000000000000000000004)
[ "$(echo "$proof" | field balance)" = "$(printf '0x%x' $((1000 + tip)))" ] || fail "proof"
[ "$(cast balance "$address")" = $((1000 + tip)) ] || fail "balance"
cast gas-price > /dev/null && cast chain-id > /dev/null && cast nonce "$me" > /dev/null && cast block latest > /dev/null
echo "cast: all steps passed"
