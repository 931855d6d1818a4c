/** Calls another broker: name resolution, TCP, TLS. The handshake of brokers begins above it. */
import { connect, type TLSSocket } from 'node:tls'
import { preSharedKey, pskIdentity, tlsSettings } from './link-security.js'
import type { PeerAddress } from './peer-addresses.js'

export function dialLink(address: PeerAddress, clusterKey: string): TLSSocket {
  const psk = preSharedKey(clusterKey)
  return connect({
    ...tlsSettings,
    host: address.host,
    port: address.port,
    // The key itself says who may be there: there are no certificates to check.
    checkServerIdentity: () => undefined,
    pskCallback: () => ({ psk, identity: pskIdentity }),
  })
}
