/*
 * Raw TCP: tcp-peer server|client <port> latency|rate|bandwidth <bytes> <ms> <pairs>
 * Ping-pong of one pair spins, of many blocks, because more spinners than cores only wait for each other. A stream is one send a message.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define WARM_UP_MS 300.0
#define MOST_SAMPLES 4000000

static double now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

static int spins;

/* 0 at the end of the stream. */
static int receive_all(int fd, char *buffer, size_t bytes) {
  size_t had = 0;
  while (had < bytes) {
    ssize_t got = recv(fd, buffer + had, bytes - had, spins ? MSG_DONTWAIT : 0);
    if (got > 0) had += got;
    else if (got == 0 || (errno != EAGAIN && errno != EINTR)) return 0;
  }
  return 1;
}

static int send_all(int fd, const char *buffer, size_t bytes) {
  size_t sent = 0;
  while (sent < bytes) {
    ssize_t put = send(fd, buffer + sent, bytes - sent, MSG_NOSIGNAL);
    if (put > 0) sent += put;
    else if (errno != EINTR) return 0;
  }
  return 1;
}

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

static void ask(int fd, char *buffer, size_t bytes, double duration_ms) {
  double *times = malloc(MOST_SAMPLES * sizeof *times);
  long samples = 0;
  double born = now_ms(), now = born;
  while (now - born < WARM_UP_MS + duration_ms && samples < MOST_SAMPLES) {
    double start = now;
    if (!send_all(fd, buffer, bytes) || !receive_all(fd, buffer, bytes)) return;
    now = now_ms();
    if (start - born > WARM_UP_MS) times[samples++] = now - start;
  }
  qsort(times, samples, sizeof *times, compare);
  printf("result %f\n", times[samples / 2] / 2 * 1e3);
}

static void count(int fd, char *buffer, size_t room, size_t bytes, int is_rate) {
  double born = now_ms(), start = 0, last = born, received = 0;
  for (;;) {
    ssize_t got = recv(fd, buffer, room, 0);
    if (got <= 0) break;
    last = now_ms();
    if (start > 0) received += got;
    else if (last - born > WARM_UP_MS) start = last;
  }
  double per_ms = received / (last - start);
  printf("result %f\n", is_rate ? per_ms / bytes / 1e3 : per_ms / 1e3);
}

int main(int argc, char **argv) {
  if (argc < 7) return 2;
  int is_server = !strcmp(argv[1], "server"), is_latency = !strcmp(argv[3], "latency"), one = 1;
  size_t bytes = strtoul(argv[4], NULL, 10), room = bytes > 65536 ? bytes : 65536;
  double duration_ms = atof(argv[5]);
  char *buffer = calloc(1, room);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  spins = is_latency && atoi(argv[6]) == 1;
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  if (is_server) {
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 1)) return 1;
    puts("ready");
    fflush(stdout);
    fd = accept(fd, NULL, NULL);
  } else if (connect(fd, (struct sockaddr *)&address, sizeof address)) return 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (is_latency && is_server) while (receive_all(fd, buffer, bytes) && send_all(fd, buffer, bytes));
  else if (is_latency) ask(fd, buffer, bytes, duration_ms);
  else if (is_server) count(fd, buffer, room, bytes, !strcmp(argv[3], "rate"));
  else for (double until = now_ms() + WARM_UP_MS + duration_ms; now_ms() < until && send_all(fd, buffer, bytes););
  close(fd);
  return 0;
}
