/** The page that clients map read-only (protocol/broker-page.ts), as its writer in the control plane sees it. */
import { brokerPage, brokerPageGeometry, brokerPageMagic, nodeNameRow } from '../../protocol/broker-page.js'
import { abiVersion, clientFingerprint } from '../../protocol/version.js'
import { Mapping } from '../../shm/mapping.js'

export class BrokerPage {
  readonly mapping: Mapping
  readonly #wallTimeMs: () => number

  constructor(identity: { readonly node: string; readonly epoch: number; readonly wallTimeMs: () => number }) {
    this.mapping = Mapping.createReadOnlyShared('broker-page', brokerPageGeometry.byteLength)
    this.#wallTimeMs = identity.wallTimeMs
    brokerPage.write(this.mapping.memory, 0, {
      magic: brokerPageMagic,
      version: abiVersion,
      fingerprint: clientFingerprint,
      epoch: identity.epoch,
      node: identity.node,
      heartbeatTimeMs: identity.wallTimeMs(),
    })
  }

  /** Before the index is handed out. */
  nameNode(index: number, name: string): void {
    const base = brokerPageGeometry.nodeNamesOffset + index * nodeNameRow.byteLength
    nodeNameRow.write(this.mapping.memory, base, { name })
  }

  setState(state: number): void {
    this.mapping.words.store(brokerPage.word.state, state)
  }

  beat(): void {
    brokerPage.write(this.mapping.memory, 0, { heartbeatTimeMs: this.#wallTimeMs() })
    this.mapping.words.add(brokerPage.word.heartbeat, 1)
  }

  close(): void {
    this.mapping.close()
  }
}
