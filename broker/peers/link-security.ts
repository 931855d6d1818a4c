/**
 * Proofs between brokers. The link is TLS with a pre-shared key made of the cluster key; on top of it each side proves the key over
 * both nonces, and for each job the job's key. No key ever travels, and no proof fits another link, direction or job.
 */
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import type { SecureVersion } from 'node:tls'

/** Node offers pre-shared keys up to TLS 1.2; with an ephemeral exchange a key that leaks later opens no old recording. */
export const tlsSettings = {
  ciphers: 'ECDHE-PSK-CHACHA20-POLY1305',
  minVersion: 'TLSv1.2' as SecureVersion,
  maxVersion: 'TLSv1.2' as SecureVersion,
}
export const pskIdentity = 'shared-verbs'

export const createNonce = (): string => randomBytes(32).toString('hex')
export const createNodeId = (): string => randomBytes(16).toString('hex')

export const preSharedKey = (clusterKey: string): Buffer =>
  createHmac('sha256', 'shared-verbs link').update(clusterKey).digest()

/** Who proves and to whom: the order of the nonces is the direction. */
export interface ProofNonces {
  readonly prover: string
  readonly verifier: string
}

export function linkProof(clusterKey: string, nonces: ProofNonces, nodeId: string): string {
  const key = createHmac('sha256', 'shared-verbs welcome').update(clusterKey).digest()
  return createHmac('sha256', key).update(`${nonces.prover} ${nonces.verifier} ${nodeId}`).digest('hex')
}

export function domainProof(proofKey: Buffer, nonces: ProofNonces, job: { name: string; userId: number }): string {
  const text = `${nonces.prover} ${nonces.verifier} ${job.userId} ${job.name}`
  return createHmac('sha256', proofKey).update(text).digest('hex')
}

/** Compares in constant time. */
export function sameProof(expected: string, given: string): boolean {
  const mine = Buffer.from(expected, 'utf8')
  const yours = Buffer.from(given, 'utf8')
  return mine.byteLength === yours.byteLength && timingSafeEqual(mine, yours)
}

/** How OpenSSL says that the other side has another key: on the side that finds out, and on the side that is told. */
const wrongKeyCodes = new Set([
  'ERR_SSL_DECRYPTION_FAILED_OR_BAD_RECORD_MAC',
  'ERR_SSL_SSLV3_ALERT_BAD_RECORD_MAC',
  'ERR_SSL_DIGEST_CHECK_FAILED',
  'ERR_SSL_BAD_DECRYPT',
  'ERR_SSL_TLSV1_ALERT_DECRYPT_ERROR',
  'ERR_SSL_PSK_IDENTITY_NOT_FOUND',
  'ERR_SSL_TLSV1_ALERT_UNKNOWN_PSK_IDENTITY',
])

export const meansWrongKey = (error: unknown): boolean =>
  wrongKeyCodes.has((error as NodeJS.ErrnoException | undefined)?.code ?? '')
