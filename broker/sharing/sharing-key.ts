/**
 * What makes two uses share one provider queue pair (design §6). The number of provider queue pairs of a node is the number of distinct
 * keys in use, whatever the number of processes and queue pairs.
 */
export interface SharingKey {
  /** The sharing domain: a job is a user and a name. */
  readonly userId: number
  readonly job: string
  /** Local side: provider, device and where peers reach it. */
  readonly provider: string
  readonly device: string
  readonly address: string
  /** Remote side: a life of a node, never a bare address. */
  readonly nodeId: string
  readonly epoch: number
  readonly trafficClass: number
  readonly lane: number
}

export function printSharingKey(key: SharingKey): string {
  const local = `${key.provider}/${key.device}/${key.address}`
  return `${key.userId}/${key.job} ${local} ${key.nodeId}/${key.epoch} ${key.trafficClass} ${key.lane}`
}
