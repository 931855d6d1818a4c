import type { Job } from '../sessions/job.js'
import type { QueuePair } from '../sessions/queue-pair.js'
import type { PathUse } from './path-use.js'
import { SharedVerbsError } from '../../protocol/errors.js'

export interface PathRequest {
  readonly node: string
  readonly trafficClass: number
  readonly deadlineMs: number
  readonly isWanted: () => boolean
}

export class Sharing {
  acquire(_job: Job, request: PathRequest): Promise<PathUse> {
    return Promise.reject(new SharedVerbsError('peer-unknown', `node ${request.node} is not known`))
  }
  join(_queuePair: QueuePair, _peer: number): PathUse {
    throw new SharedVerbsError('peer-unknown', 'not known')
  }
  async addDatagramPath(_job: Job, _peer: number, _deadlineMs: number): Promise<void> {}
  listen(): Promise<number> {
    return Promise.resolve(0)
  }
  addPeer(_name: string, _address: string): void {}
  jobAppeared(_job: Job): void {}
  async endJob(_job: Job): Promise<void> {}
  async stop(_reason: string): Promise<void> {}
}
