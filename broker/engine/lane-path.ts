/**
 * What a lane and its successors have in common. A connected flow keeps to one path: when its lane is lost it waits for the next lane of
 * the same path. Datagram flows of a job to a peer wait together for whatever lane the control plane names next.
 */
export interface LanePath {
  readonly job: number
  /** Row of the peer in the node file. */
  readonly peer: number
  readonly trafficClass: number
  /** Which of the lanes of its job, peer and traffic class. */
  readonly index: number
}

export const pathName = ({ job, peer, trafficClass, index }: LanePath): string =>
  `${job} ${peer} ${trafficClass} ${index}`

export const datagramPath = (job: number, peer: number): LanePath => ({ job, peer, trafficClass: 0, index: -1 })

/** Of all paths of a job to a peer: what its datagrams go by. */
export const pathKey = (job: number, peer: number): number => job * 0x10000 + peer
