/* What is started in the races: as little as can be. */
int main(void) { return 0; }
