// Serve kubo's RPC on a free port of the loopback interface, offline; print the port. Argument: the repository's folder.
Promise.withResolvers ??= function () {
  let resolve, reject
  const promise = new Promise((yes, no) => { resolve = yes; reject = no })
  return { promise, resolve, reject }
}
const { create } = await import('ipfs-core')
const { HttpApi } = await import('ipfs-http-server')
const { blake3 } = await import('@noble/hashes/blake3')
const { from } = await import('multiformats/hashes/hasher')

// kubo knows BLAKE3 by itself; js-ipfs takes hash functions from outside.
const hasher = from({ name: 'blake3', code: 0x1e, encode: (input) => blake3(input) })
const ipfs = await create({
  repo: process.argv[2],
  offline: true,
  start: false,
  silent: true,
  ipld: { hashers: [hasher] },
  config: { Bootstrap: [], Addresses: { Swarm: [], API: '/ip4/127.0.0.1/tcp/0', Gateway: '' } }
})
const server = new HttpApi(ipfs)
await server.start()
// kubo takes blocks of 2 MiB; this server's framework stops at 1 MiB of request, headers of the form included.
for (const { settings } of server._apiServers[0].table()) if (settings.payload) settings.payload.maxBytes = 4 * 1024 * 1024
console.log(server._apiServers[0].info.port)
