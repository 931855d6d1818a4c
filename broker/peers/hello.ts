/** The first words of a link, and whether two of them fit together. Every refusal names the field and both values. */
import { SharedVerbsError } from '../../protocol/errors.js'
import type { LinkMessageBody } from '../../protocol/link.js'
import { linkVersion, wireFingerprint } from '../../protocol/version.js'

export type Hello = LinkMessageBody<'hello'>
export type Refusal = LinkMessageBody<'refused'>

export interface LinkIdentity {
  readonly node: string
  readonly nodeId: string
  readonly bootId: string
  readonly epoch: number
  /** Where this broker listens for links; 0: nowhere. */
  readonly port: number
  readonly provider: 'soft' | 'verbs'
  readonly lanes: number
  readonly sharing: 'job'
}

export function makeHello(identity: LinkIdentity, nonce: string): Hello {
  return {
    protocolMinimum: linkVersion.minimum,
    protocolMaximum: linkVersion.maximum,
    wireFingerprint,
    node: identity.node,
    nodeId: identity.nodeId,
    bootId: identity.bootId,
    epoch: identity.epoch,
    port: identity.port,
    provider: identity.provider,
    lanes: identity.lanes,
    sharing: identity.sharing,
    nonce,
  }
}

const versions = (hello: Hello): string => `${hello.protocolMinimum}..${hello.protocolMaximum}`

/** What keeps the two from working together, or null. `expected`: the node that was dialled. */
export function findMismatch(mine: Hello, yours: Hello, expected: string | null): Refusal | null {
  const differ = (field: string, mineText: string | number, yoursText: string | number): Refusal => ({
    code: 'peer-refused',
    field,
    mine: String(mineText).slice(0, 256),
    yours: String(yoursText).slice(0, 256),
  })
  const common = Math.min(mine.protocolMaximum, yours.protocolMaximum)
  if (common < Math.max(mine.protocolMinimum, yours.protocolMinimum)) {
    return differ('protocol', versions(mine), versions(yours))
  }
  if (mine.wireFingerprint !== yours.wireFingerprint) {
    return differ('wireFingerprint', mine.wireFingerprint, yours.wireFingerprint)
  }
  if (mine.nodeId === yours.nodeId) return differ('nodeId', mine.nodeId, yours.nodeId)
  if (mine.node === yours.node) return differ('node', mine.node, yours.node)
  if (expected !== null && expected !== yours.node) return differ('node', expected, yours.node)
  if (mine.provider !== yours.provider) return differ('provider', mine.provider, yours.provider)
  if (mine.sharing !== yours.sharing) return differ('sharing', mine.sharing, yours.sharing)
  if (yours.lanes < 1) return differ('lanes', mine.lanes, yours.lanes)
  return null
}

/** The refusal as an error, told from this side. `sent`: this side refuses; otherwise the peer did, and its words are turned round. */
export function refusalError(refusal: Refusal, node: string, sent: boolean): SharedVerbsError {
  const { field } = refusal
  const [mine, yours] = sent ? [refusal.mine, refusal.yours] : [refusal.yours, refusal.mine]
  const who = sent ? `refused node ${node}` : `node ${node} refused this one`
  const code = refusal.code === 'wrong-cluster-key' ? 'wrong-cluster-key' : 'peer-refused'
  const message = `${who}: ${field} is ${mine} here and ${yours} there; make both brokers agree`
  return new SharedVerbsError(code, message, { node, field, mine, yours })
}
